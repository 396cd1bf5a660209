package pusher

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
)

// appsFileMost is how large a file of apps may be, in bytes.
const appsFileMost = 16 << 20

// ReadApps reads a YAML file of apps, of which docs/pusher.md has an example. New and Reload check
// what is in it.
func ReadApps(path string) ([]App, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, appsFileMost+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > appsFileMost:
		return nil, fmt.Errorf("%s has more than %d bytes", path, appsFileMost)
	}
	var file struct {
		Apps []App `yaml:"apps"`
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Apps) == 0 {
		return nil, fmt.Errorf("%s: there are no apps", path)
	}
	return file.Apps, nil
}
