package tuning

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// StateFile and RunFile, below the root, are where Apply and Raise save what is
// needed to put everything back.
const (
	StateFile = "/var/lib/lull/tune.json"
	RunFile   = "/var/lib/lull/run.json"
)

// state is what is needed to restore everything. It is on the disk before
// anything changes: if the process is killed at any point, the state has all
// changes that were made, and perhaps some that were not.
type state struct {
	Version   int      `json:"version"`
	Boot      string   `json:"boot_id"`
	Namespace string   `json:"network_namespace"`
	Values    []value  `json:"values,omitempty"` // in the order in which they change
	Files     []file   `json:"files,omitempty"`
	Dirs      []string `json:"directories,omitempty"` // that were made, outer ones first
}

const stateVersion = 1

// value is a sysctl. A second apply appends to New and keeps Old.
type value struct {
	Name string   `json:"name"`
	Old  string   `json:"old"`
	New  []string `json:"new"`            // values that we set, the latest one last
	Read string   `json:"read,omitempty"` // what the kernel made of it
}

// ours reports whether a value is what we wrote, or what the kernel made of it.
func (v value) ours(now string) bool {
	for _, n := range v.New {
		if same(n, now) {
			return true
		}
	}
	return v.Read != "" && same(v.Read, now)
}

// file is a file that was written.
type file struct {
	Path string   `json:"path"`
	Old  *content `json:"old"` // nil if there was none
	New  [][]byte `json:"new"` // that are ours
}

// content is the content of a file, and its owner.
type content struct {
	Text []byte      `json:"text"`
	Mode fs.FileMode `json:"mode"`
	UID  int         `json:"uid"`
	GID  int         `json:"gid"`
}

// ours reports whether a file holds what we wrote.
func (f file) ours(now *content) bool {
	for _, n := range f.New {
		if now != nil && string(n) == string(now.Text) {
			return true
		}
	}
	return false
}

func (s *state) value(name string) *value {
	for i := range s.Values {
		if s.Values[i].Name == name {
			return &s.Values[i]
		}
	}
	return nil
}

func (s *state) file(path string) *file {
	for i := range s.Files {
		if s.Files[i].Path == path {
			return &s.Files[i]
		}
	}
	return nil
}

// after is the new content of a file that has had until now: lines of somebody else
// stay, before ours. The state is that of an earlier apply, or nil.
func (s *state) after(path string, had *content, ours []byte) []byte {
	if s != nil {
		if f := s.file(path); f != nil && f.ours(had) {
			had = f.Old
		}
	}
	if had == nil {
		return ours
	}
	return slices.Concat(had.Text, []byte("\n"), ours)
}

// here returns an empty state for this boot and network namespace. A state must
// say which kernel and namespace its values belong to.
func (m *Machine) here() (*state, error) {
	boot, err := m.sysctl("kernel.random.boot_id")
	if err != nil {
		return nil, fmt.Errorf("tuning: tell this boot from others: %w", err)
	}
	namespace, err := os.Readlink(filepath.Join(m.root, "proc/self/ns/net"))
	if err != nil {
		return nil, fmt.Errorf("tuning: tell this network namespace from others: %w", err)
	}
	return &state{Version: stateVersion, Boot: boot, Namespace: namespace}, nil
}

// check returns an error if Apply cannot have written a state. Revert does as
// root what the state says, so it must not say more than Apply does.
func (s *state) check() error {
	for _, v := range s.Values {
		switch {
		case !slices.Contains(tunable, v.Name):
			return fmt.Errorf("it names the sysctl %q, which lull does not set", v.Name)
		case len(v.New) == 0:
			return fmt.Errorf("it does not say what %s was set to", v.Name)
		}
	}
	for _, f := range s.Files {
		if !slices.Contains(ourFiles, f.Path) {
			return fmt.Errorf("it names the file %q, which lull does not write", f.Path)
		}
	}
	for _, dir := range s.Dirs {
		above := func(file string) bool { return dir != "" && strings.HasPrefix(file, dir+"/") }
		if !slices.ContainsFunc(ourFiles, above) {
			return fmt.Errorf("it names the directory %q, which lull does not make", dir)
		}
	}
	return nil
}

// ourFiles are all files that Apply writes, beside its state.
var ourFiles = []string{SysctlPath, BootPath, DropInPath(ServerUnit), DropInPath(GeneratorUnit)}

// loadState returns the state in a file, or nil if there is none.
func loadState[T any, S interface {
	*T
	check() error
}](m *Machine, path string) (*T, error) {
	c, err := m.contentOf(path)
	if c == nil && err == nil {
		return nil, nil
	}
	s := new(T)
	if err == nil {
		err = c.parseState(s)
	}
	if err == nil {
		err = S(s).check()
	}
	if err != nil {
		return nil, fmt.Errorf("tuning: %s cannot be used: %w", path, err)
	}
	return s, nil
}

// parseState reads a state. The server's user may own the directory that the
// file is in, so the file itself must show that nobody else has written it.
func (c *content) parseState(s any) error {
	const othersWrite = 0o022
	switch {
	case c.UID != 0 && c.UID != os.Geteuid():
		return fmt.Errorf("it belongs to user %d, not to root", c.UID)
	case c.Mode&othersWrite != 0:
		return fmt.Errorf("its mode is %v: other users may write to it", c.Mode)
	}
	var head struct{ Version int }
	if err := json.Unmarshal(c.Text, &head); err != nil {
		return err
	}
	if head.Version != stateVersion {
		return fmt.Errorf("version %d is not %d: another version of lull wrote it and can revert it", head.Version, stateVersion)
	}
	return json.Unmarshal(c.Text, s)
}

func (m *Machine) saveState(path string, s any) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	const private = 0o600 // it holds other files' former content
	return m.replace(path, &content{Text: append(text, '\n'), Mode: private, UID: os.Geteuid(), GID: os.Getegid()})
}

// errBusy is returned if another process is tuning.
var errBusy = errors.New("tuning: another lull is tuning this machine, or has raised its limits for a run; wait until it is done")

// begin makes the states' directory if it does not exist, and locks it.
func (m *Machine) begin() (unlock func(), err error) {
	if err := m.makeDir(filepath.Dir(StateFile), stateDirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("tuning: keep a state: %w", err)
	}
	return m.lock()
}

// lock locks the states' directory until unlock is called. If begin has made the
// directory and it is empty by then, unlock removes it.
func (m *Machine) lock() (unlock func(), err error) {
	dir := filepath.Dir(StateFile)
	d, err := os.Open(m.below(dir))
	if err != nil {
		return nil, fmt.Errorf("tuning: keep a state: %w", err)
	}
	switch err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		_ = d.Close()
		return nil, errBusy
	case err != nil:
		_ = d.Close()
		return nil, fmt.Errorf("tuning: lock %s: %w", dir, err)
	}
	// Another process may have removed it between Open and Flock.
	held, err := d.Stat()
	if there, e := os.Stat(m.below(dir)); err != nil || e != nil || !os.SameFile(held, there) {
		_ = d.Close()
		return nil, errBusy
	}
	return func() {
		m.removeOwnDir(dir)
		_ = d.Close()
	}, nil
}

// stateDirMode distinguishes a directory that begin made from one that existed:
// the process may be killed before there is a state that says so.
const stateDirMode = 0o700

// removeOwnDir removes a directory that begin made, if it is empty.
func (m *Machine) removeOwnDir(dir string) {
	if info, err := os.Stat(m.below(dir)); err == nil && info.Mode().Perm() == stateDirMode {
		_ = m.removeDir(dir) // fails while there is something in it
	}
}

// step is called before every change on the disk or in the kernel. Tests replace
// it, to stop there or to make the change fail.
var step = func(string) error { return nil }

// below is the path of a file of the machine.
func (m *Machine) below(path string) string { return filepath.Join(m.root, path) }

// contentOf reads a file; it returns nil if there is none. A file that is not an
// ordinary one is not ours to replace: a link to /dev/null, for instance,
// switches a file off. Everything is asked of the open descriptor, so that
// nobody can put another file in its place meanwhile.
func (m *Machine) contentOf(path string) (*content, error) {
	// O_NONBLOCK, because opening a FIFO would wait for a writer.
	f, err := os.OpenFile(m.below(path), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s is not an ordinary file but a symbolic link", path)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not an ordinary file: its mode is %v", path, info.Mode())
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return &content{Text: text, Mode: info.Mode(), UID: int(stat.Uid), GID: int(stat.Gid)}, nil
}

// temporary is the file to which new content is written before it is renamed.
// Programs that read /etc/sysctl.d or a unit's directory ignore its name.
func temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".lull-tune")
}

// replace replaces a file's content atomically and syncs it: whatever happens, the
// file has the old content or the new content.
func (m *Machine) replace(path string, to *content) (err error) {
	part := m.below(temporary(path))
	if err := step("write " + temporary(path)); err != nil {
		return err
	}
	_ = os.Remove(part) // of a process that was killed
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(part)
		}
	}()
	if _, err := f.Write(to.Text); err != nil {
		return err
	}
	if err := f.Chown(to.UID, to.GID); err != nil {
		return err
	}
	if err := f.Chmod(to.Mode); err != nil { // after chown, which clears bits
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := step("rename to " + path); err != nil {
		return err
	}
	if err := os.Rename(part, m.below(path)); err != nil {
		return err
	}
	return m.syncDir(filepath.Dir(path))
}

// remove removes a file and syncs its directory. It is no error if the file does
// not exist.
func (m *Machine) remove(path string) error {
	if err := step("remove " + path); err != nil {
		return err
	}
	if err := os.Remove(m.below(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return m.syncDir(filepath.Dir(path))
}

// removeDir removes a directory that is empty.
func (m *Machine) removeDir(path string) error {
	if err := step("remove " + path); err != nil {
		return err
	}
	return unix.Rmdir(m.below(path))
}

func (m *Machine) makeDir(path string, mode fs.FileMode) error {
	if err := step("make " + path); err != nil {
		return err
	}
	if err := os.Mkdir(m.below(path), mode); err != nil {
		return err
	}
	if err := os.Chmod(m.below(path), mode); err != nil { // Mkdir applies the umask
		return err
	}
	return m.syncDir(filepath.Dir(path))
}

// syncDir syncs a directory. It is no error if it does not exist.
func (m *Machine) syncDir(path string) error {
	d, err := os.Open(m.below(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// permitted returns an error if this process may not write to a directory, or, if
// it does not exist, to the nearest one above that does.
func (m *Machine) permitted(dir string) error {
	for {
		err := unix.Faccessat(unix.AT_FDCWD, m.below(dir), unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			if err != nil {
				err = &fs.PathError{Op: "write to", Path: dir, Err: err}
			}
			return err
		}
		dir = filepath.Dir(dir)
	}
}

// oneLine makes a value fit into a table's row.
func oneLine(value string) string { return strings.Join(strings.Fields(value), " ") }
