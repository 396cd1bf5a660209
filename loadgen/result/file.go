package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// bytesMax is the largest file that Read takes. A run of a week with a thousand
// broadcasts has a few megabytes.
const bytesMax = 256 << 20

// Read reads a Result that WriteJSON wrote. It refuses what is none, and those of other
// versions.
func Read(in io.Reader) (*Result, error) {
	b, err := io.ReadAll(io.LimitReader(in, bytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	if len(b) > bytesMax {
		return nil, fmt.Errorf("result: it is larger than %d MB, as no result of lull load is", bytesMax>>20)
	}
	var head struct {
		Schema  string `json:"schema"`
		Version int    `json:"version"`
		Conns   *int   `json:"conns"`
		Counts  any    `json:"counts"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("result: it is no JSON of lull load: %w", err)
	}
	switch {
	case head.Schema == "" && head.Conns != nil && head.Counts != nil:
		return nil, errors.New("result: it is of version 1, which has no histograms to compare: run the load again with this lull")
	case head.Schema != Schema:
		return nil, errors.New("result: it is no result of lull load: its schema has to be " + Schema)
	case head.Version > Version:
		return nil, fmt.Errorf("result: it is of version %d, and this lull reads version %d: use the lull that wrote it, or a newer one", head.Version, Version)
	case head.Version < Version:
		return nil, fmt.Errorf("result: it is of version %d, and this lull reads version %d: run the load again with this lull", head.Version, Version)
	}
	r := &Result{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("result: it is damaged: %w", err)
	}
	return r, nil
}

// ReadFile reads a Result from a file.
func ReadFile(path string) (*Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// WriteJSON writes r as docs/results.md describes.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Writable checks that a file can be written at path, before a run whose result would
// be lost otherwise. It changes nothing. "-" is stdout, and can.
func Writable(path string) error {
	if path == "-" {
		return nil
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil // to open a pipe would wait for its reader
	}
	isNew := errors.Is(err, os.ErrNotExist)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	err = f.Close()
	if isNew {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
