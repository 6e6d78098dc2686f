package config

import (
	"encoding/json"
	"reflect"
	"strings"
)

// Schema returns the JSON Schema (draft 2020-12) of a file of --conf.
func Schema() []byte {
	s := object(reflect.TypeFor[File]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Cutout configuration"
	s["description"] = "What cutout run --conf reads. The keys are the names of flags."
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // of maps, texts and lists
	}
	return append(data, '\n')
}

func object(t reflect.Type) map[string]any {
	properties := map[string]any{}
	for f := range t.Fields() {
		p := schemaOf(f.Type)
		p["description"] = f.Tag.Get("doc")
		properties[keyOf(f)] = p
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

func schemaOf(t reflect.Type) map[string]any {
	scalar := []string{"string", "number"}
	switch t {
	case reflect.TypeFor[text]():
		return map[string]any{"type": scalar}
	case reflect.TypeFor[list]():
		return map[string]any{"type": []string{"string", "number", "array"}, "items": map[string]any{"type": scalar}}
	case reflect.TypeFor[map[string]*text]():
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": append(scalar, "null")}}
	case reflect.TypeFor[map[string]FileSecret]():
		return map[string]any{
			"type":          "object",
			"propertyNames": map[string]any{"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,127}$"},
			"additionalProperties": func() map[string]any {
				s := object(reflect.TypeFor[FileSecret]())
				s["type"] = []string{"object", "null"} // a well-known one needs no more
				return s
			}(),
		}
	case reflect.TypeFor[*bool]():
		return map[string]any{"type": "boolean"}
	case reflect.TypeFor[count]():
		return map[string]any{"type": "integer", "minimum": 1}
	}
	panic("no schema for " + t.String())
}

func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

// fileKeys lists the keys of a file and of its secrets.
func fileKeys() []string {
	var out []string
	for _, t := range []reflect.Type{reflect.TypeFor[File](), reflect.TypeFor[FileSecret]()} {
		for f := range t.Fields() {
			out = append(out, keyOf(f))
		}
	}
	return out
}

// FileKeys lists the keys of a file, and those of a secret in it.
func FileKeys() []string { return fileKeys() }
