package tuning

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// StateFile is where apply notes what revert needs, below the root.
const StateFile = "/var/lib/lull/tune.json"

// state is what it takes to put everything back. It is on the disk before
// anything changes, so that whoever is killed at whatever point leaves a state
// that knows of all he has done, and perhaps of more.
type state struct {
	Version   int      `json:"version"`
	Boot      string   `json:"boot_id"`
	Namespace string   `json:"network_namespace"`
	Values    []value  `json:"values,omitempty"` // in the order in which they change
	Files     []file   `json:"files,omitempty"`
	Dirs      []string `json:"directories,omitempty"` // that were made, outer ones first
}

const stateVersion = 1

// value is a sysctl. A second apply adds to New, and leaves Old.
type value struct {
	Name string   `json:"name"`
	Old  string   `json:"old"`
	New  []string `json:"new"`            // that are ours; the last one is the present one
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

// file is one that was written.
type file struct {
	Path string   `json:"path"`
	Old  *content `json:"old"` // nil if there was none
	New  [][]byte `json:"new"` // that are ours
}

// content is what a file holds.
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

// here returns a state without content, for this boot and network namespace.
// Without them a state would not know whose values it holds.
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

// loadState returns the state in a file, or nil if there is none.
func loadState[T any](m *Machine, path string) (*T, error) {
	c, err := m.contentOf(path)
	if c == nil && err == nil {
		return nil, nil
	}
	s := new(T)
	if err == nil {
		err = c.parseState(s)
	}
	if err != nil {
		return nil, fmt.Errorf("tuning: read %s: %w", path, err)
	}
	return s, nil
}

func (c *content) parseState(s any) error {
	// Whoever runs the server may own the directory, and must not be able to
	// have files put back as root that were never there.
	if c.UID != 0 && c.UID != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, not to root", c.UID)
	}
	var head struct{ Version int }
	if err := json.Unmarshal(c.Text, &head); err != nil {
		return err
	}
	if head.Version != stateVersion {
		return fmt.Errorf("version %d is not %d: another lull has written it and can revert it", head.Version, stateVersion)
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

// errBusy is what the second of two gets.
var errBusy = errors.New("tuning: another lull is tuning this machine; wait until it is done")

// begin makes the states' directory if need be, and locks it.
func (m *Machine) begin() (unlock func(), err error) {
	if err := m.makeDir(filepath.Dir(StateFile), stateDirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("tuning: keep a state: %w", err)
	}
	return m.lock()
}

// lock keeps others from the states' directory until unlock. If begin has made
// it and it holds nothing by then it goes away again.
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
	// Another may have removed it between the two.
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

// stateDirMode tells a directory that begin made from one that was there: a
// kill may come before there is a state to note it in.
const stateDirMode = 0o700

// removeOwnDir removes a directory that begin made, if it is empty.
func (m *Machine) removeOwnDir(dir string) {
	if info, err := os.Stat(m.below(dir)); err == nil && info.Mode().Perm() == stateDirMode {
		_ = m.removeDir(dir) // fails while there is something in it
	}
}

// step is asked before every change on the disk or in the kernel. Tests stop
// there, or let the change fail.
var step = func(string) error { return nil }

// below is where a file of the machine stands here.
func (m *Machine) below(path string) string { return filepath.Join(m.root, path) }

// contentOf reads a file; nil if there is none. What is no ordinary file is
// not ours to replace: a link to /dev/null, for instance, switches a file off.
func (m *Machine) contentOf(path string) (*content, error) {
	info, err := os.Lstat(m.below(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not an ordinary file: %v", path, info.Mode())
	}
	text, err := os.ReadFile(m.below(path))
	if err != nil {
		return nil, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return &content{Text: text, Mode: info.Mode(), UID: int(stat.Uid), GID: int(stat.Gid)}, nil
}

// temporary is where a file's new content is written before it takes its name.
// No program that reads /etc/sysctl.d or a unit's directory looks at it.
func temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".lull-tune")
}

// replace gives a file another content, at once and for good: whatever
// happens, there is the former or the new one.
func (m *Machine) replace(path string, to *content) (err error) {
	part := m.below(temporary(path))
	if err := step("write " + temporary(path)); err != nil {
		return err
	}
	_ = os.Remove(part) // of one who was killed
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
	if err := f.Chmod(to.Mode); err != nil { // behind chown, which takes bits away
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

// remove removes a file for good; one that is gone already is fine.
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
	if err := os.Chmod(m.below(path), mode); err != nil { // whatever the umask is
		return err
	}
	return m.syncDir(filepath.Dir(path))
}

// syncDir makes names in a directory last. One that is gone has none.
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

// permitted reports why this process may not write into a directory, or the
// nearest one above it that exists.
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

// oneLine keeps a value in a table's row.
func oneLine(value string) string { return strings.Join(strings.Fields(value), " ") }
