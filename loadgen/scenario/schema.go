package scenario

import "encoding/json"

// schema is a JSON schema, draft 7, which editors know.
type schema map[string]any

// scalarSchema is a text, which YAML may take for something else.
var scalarSchema = schema{"type": []string{"string", "number", "boolean"}}

// underscored is a number that readers of YAML 1.2 take for a text.
var underscored = schema{"type": "string", "pattern": "^[1-9][0-9]{0,2}(_[0-9]{3})+$"}

func anyOf(s ...schema) schema { return schema{"anyOf": s} }

func number(least, most int) schema {
	return anyOf(schema{"type": "integer", "minimum": least, "maximum": most}, underscored)
}

// reference is the schema of a kind of objects.
func reference(name string) schema { return schema{"$ref": "#/definitions/" + name} }

// Schema is a JSON schema of scenarios (draft 7), which editors complete and check by.
// What it accepts can still be wrong in ways that a schema does not say.
func Schema() ([]byte, error) {
	steps := stepVariants()
	root := fileObject.schema()
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["title"] = "A load for lull load"
	root["definitions"] = schema{
		"group":        groupObject.schema(),
		"step":         anyOf(append(steps.schemas(), schema{"const": closeStep, "description": "End the connection with a Close frame; a script's last step."})...),
		"phase":        anyOf(phaseVariants.schemas()...),
		"stream":       streamObject.schema(),
		"message":      messageObject.schema(),
		"answer":       anyOf(answerVariants.schemas()...),
		"distribution": anyOf(thinkVariants.schemas()...),
		"normal":       normal.schema(),
	}
	b, err := json.MarshalIndent(root, "", "  ")
	return append(b, '\n'), err
}

// schema is the schema of an object.
func (o *object[T]) schema() schema {
	properties, required := schema{}, []string{}
	for _, k := range o.keys {
		s := schema{"description": k.what}
		for name, value := range k.schema {
			s[name] = value
		}
		if _, refers := s["$ref"]; refers {
			s = schema{"description": k.what, "allOf": []schema{k.schema}} // beside $ref nothing counts
		}
		properties[k.name] = s
		if k.without == "" {
			required = append(required, k.name)
		}
	}
	return schema{"type": "object", "description": o.what, "properties": properties, "required": required, "additionalProperties": false}
}

func (v *variants[T]) schemas() (all []schema) {
	for i := range v.objects {
		all = append(all, v.objects[i].schema())
	}
	return all
}
