package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/cutoutdev/cutout/internal/source/helper"
)

const everything = `
image: tools
command: [sh, -c, 'echo "$API_KEY"']
secrets:
  API_KEY:
    source: file:key@home
    hosts: [api.example.com, "*.eu.example.com:8443"]
    placeholder: shaped
    surface: [header, "body:/auth/token"]
    scope: [GET /repos/**, POST /login]
    on-violation: block,hold
    exclusive: true
    allow-plain: api.example.com
    allow-unverified: [api.example.com]
    allow-short: true
  API_KEY_2: {hosts: ["*"], placeholder: test-key-0002, allow-any-host: true, exclusive: false}
  GITHUB_TOKEN:
on-violation: block
scrub: ["api.example.com=lax"]
tls-no-verify-upstream-for: api.example.com
allow-shared-suffix: ["*.github.io"]
env: {A: 1, LANG: }
workdir: /src
user: nobody
memory: 512m
cpus: 2
volume: ["/data:/data:ro"]
copy: [".:/src"]
timeout: 5m
tty: false
quiet: true
net: private
net-rule: [deny@10.0.0.5, allow@dns]
net-default: allow
net-default-egress: allow
net-default-ingress: deny
publish: ["8080:80"]
connect-to: ["api.example.com:443=127.0.0.1:8443"]
dns-nameserver: ["127.0.0.1:53"]
dns-only-allowed: true
tls-intercept: all
tls-bypass: bypass.example
tls-upstream-ca-cert: [ca.pem]
tls-upstream-ca-cert-for: [api.example.com=ca.pem]
metrics: 9464
otlp: http://localhost:4318
otlp-headers: env:HEADERS
otlp-ca-cert: otel.pem
no-snapshot: true
weak-cage: true
`

// written is what flags would have to say for it.
func written() Run {
	var r Run
	r.Secrets = []string{"API_KEY=file:key@home@api.example.com,*.eu.example.com:8443", "API_KEY_2@*", "GITHUB_TOKEN"}
	r.Placeholders = []string{"API_KEY=shaped", "API_KEY_2=test-key-0002"}
	r.Surfaces = []string{"API_KEY=header", "API_KEY=body:/auth/token"}
	r.Scopes = []string{"API_KEY=GET /repos/**", "API_KEY=POST /login"}
	r.OnViolation = []string{"API_KEY=block,hold", "block"}
	r.Exclusive, r.AllowShort, r.AllowAnyHost = []string{"API_KEY"}, []string{"API_KEY"}, []string{"API_KEY_2"}
	r.AllowPlain, r.AllowUnverified = []string{"API_KEY@api.example.com"}, []string{"API_KEY@api.example.com"}
	r.Scrub, r.NoVerify, r.AllowSharedSuffix = []string{"api.example.com=lax"}, []string{"api.example.com"}, []string{"*.github.io"}
	r.Env, r.Dir, r.User, r.Memory, r.CPUs = []string{"A=1", "LANG"}, "/src", "nobody", "512m", 2
	r.Published = []string{"8080:80"}
	r.Volumes, r.WeakCage, r.Args = []string{"/data:/data:ro"}, true, []string{"sh", "-c", `echo "$API_KEY"`}
	r.Network = Network{Profile: "private", Rules: []string{"deny@10.0.0.5", "allow@dns"}, Default: "allow", DefaultEgress: "allow", DefaultIngress: "deny"}
	r.ConnectTo, r.Nameservers, r.OnlyAllowed = []string{"api.example.com:443=127.0.0.1:8443"}, []string{"127.0.0.1:53"}, true
	r.Intercept, r.Bypass = "all", []string{"bypass.example"}
	r.UpstreamCAs, r.UpstreamCAFor = []string{"ca.pem"}, []string{"api.example.com=ca.pem"}
	r.Export = Export{Metrics: "9464", OTLP: "http://localhost:4318", Headers: "env:HEADERS", CA: "otel.pem"}
	return r
}

func TestMerge(t *testing.T) {
	f, err := load(t, everything)
	if err != nil {
		t.Fatal(err)
	}
	var r Run
	f.Merge(&r, func(string) bool { return false })
	if d := cmp.Diff(written(), r); d != "" {
		t.Errorf("the file is not what flags would say: %s", d)
	}
	if d, err := f.Deadline(); d.Minutes() != 5 || err != nil {
		t.Errorf("got %v, %v", d, err)
	}
}

// TestFlagsWin: a flag replaces what the file says under its name, of a
// secret or variable what it says of that one, and nothing else.
func TestFlagsWin(t *testing.T) {
	f, err := load(t, everything)
	if err != nil {
		t.Fatal(err)
	}
	flags := func(r *Run) {
		r.Secrets, r.Surfaces, r.Exclusive = []string{"API_KEY=env:B@b.example"}, []string{"API_KEY_2=query"}, []string{"API_KEY_2"}
		r.Env, r.Dir, r.CPUs, r.Args = []string{"LANG=C"}, "", 1, []string{"true"}
		r.Network = Network{Off: true, Rules: []string{"allow@public"}}
		r.Intercept, r.OnlyAllowed, r.WeakCage, r.OnViolation = "auto", false, false, []string{"block-and-log"}
	}
	given := []string{"workdir", "cpus", "no-net", "net-rule", "tls-intercept", "dns-only-allowed", "weak-cage"}
	var got Run
	flags(&got)
	f.Merge(&got, func(flag string) bool { return slices.Contains(given, flag) })

	want := written()
	flags(&want)
	want.Secrets = []string{"API_KEY=env:B@b.example", "API_KEY_2@*", "GITHUB_TOKEN"}
	want.Surfaces = []string{"API_KEY_2=query", "API_KEY=header", "API_KEY=body:/auth/token"}
	want.Exclusive = []string{"API_KEY_2", "API_KEY"}
	want.Env = []string{"LANG=C", "A=1"}
	want.OnViolation = []string{"block-and-log", "API_KEY=block,hold"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestFileIsSearched: a value that stands in the file is found before
// anything of it is repeated.
func TestFileIsSearched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cutout.yaml")
	const value = "value-of-tok-0001"
	if err := os.WriteFile(path, []byte("secrets: {TOK: {hosts: a.example}} # "+value+"\nworkdir: /x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, whole, _, err := LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r Run
	f.Merge(&r, func(string) bool { return false })
	r.Also = []Text{whole}
	lookup := func(string) (string, bool) { return value, true }
	if _, err := r.Build(t.Context(), lookup, helper.FromEnv(lookup)); err == nil || err.Error() != "the value of TOK stands in "+path {
		t.Errorf("got %v", err)
	}
}

// TestSchema: the published schema is of this structure, and says of files
// what the parser says.
func TestSchema(t *testing.T) {
	published, err := os.ReadFile("../../docs/cutout.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(published, Schema()) {
		t.Error("docs/cutout.schema.json is not what cutout conf schema prints")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("cutout.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("cutout.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for text, valid := range map[string]bool{
		everything:                  true,
		"{}":                        true,
		"secrets: {GITHUB_TOKEN: }": true,
		"secrets: {A: {hosts: a.example, scope: }}": false,
		"secrets: {A-B: {hosts: a.example}}":        false,
		"secrets: {A: {host: a.example}}":           false,
		"secrets: [A]":                              false,
		"env: {A: , B: 1, C: x}":                    true,
		"env: {A: true}":                            false,
		"env: {A: [x]}":                             false,
		"command: [a, 1]":                           true,
		"command: [a, null]":                        false,
		"command: [a, [b]]":                         false,
		"command: [a, true]":                        false,
		"image:":                                    false,
		"image: [a]":                                false,
		"cpus: 1.5":                                 false,
		"cpus: 0":                                   false,
		"cpus: -1":                                  false,
		"cpus: two":                                 false,
		"tty: yes":                                  false,
		"nothing: 1":                                false,
		"- a":                                       false,
	} {
		_, _, parsed := readFile([]byte(text))
		var v any
		data, err := yaml.YAMLToJSON([]byte(text))
		if err == nil {
			err = json.Unmarshal(data, &v)
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if says := schema.Validate(v); (says == nil) != valid || (parsed == nil) != valid {
			t.Errorf("%q: the schema says %v, the parser %v", text, says, parsed)
		}
	}
}

// TestDocumentedFile: the example is understood as it stands, and its keys
// are explained.
func TestDocumentedFile(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(examples) == 0 {
		t.Fatal("the page has no example")
	}
	for _, e := range examples {
		f, _, err := readFile(e[1])
		if err != nil {
			t.Fatal(err)
		}
		var r Run
		f.Merge(&r, func(string) bool { return false })
		if _, err := r.Check(t.Context(), func(string) (string, bool) { return "", false }); err != nil {
			t.Error(err)
		}
	}
	for _, key := range FileKeys() {
		if !bytes.Contains(page, []byte("`"+key+"`")) {
			t.Errorf("the page does not mention %s", key)
		}
	}
}
