package scenario

import (
	"bytes"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

const schemaPage = "../../docs/scenario.schema.json"

func TestTheSchemaIsThatOfTheDecoder(t *testing.T) {
	got, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	compare(t, schemaPage, got)
}

// editor checks a scenario as an editor does, by the schema alone.
func editor(t *testing.T) func(text []byte) error {
	t.Helper()
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", parsed); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return func(text []byte) error {
		var v any
		if err := yaml.Unmarshal(text, &v); err != nil {
			return err
		}
		return s.Validate(v)
	}
}

func TestTheSchemaAcceptsWhatTheDecoderAccepts(t *testing.T) {
	check := editor(t)
	for _, path := range append(exampleFiles(t), "testdata/everything.yaml") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(text); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}
