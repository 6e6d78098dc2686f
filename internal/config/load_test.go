package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func load(t testing.TB, text string) (File, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cutout.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, _, _, err := LoadFile(path)
	return f, err
}

// TestHostileFile: E7. Each is an error with line and column, soon.
func TestHostileFile(t *testing.T) {
	deep := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
		}
		return b.String()
	}
	tests := map[string]struct{ text, where, says string }{
		"unknown key":        {"image: tools\nsecretz: {}\n", "2:1", "unknown key secretz"},
		"unknown key inside": {"secrets:\n  API_KEY:\n    host: [a.example]\n", "3:5", "unknown key host"},
		"a value":            {"secrets:\n  API_KEY:\n    value: sk-live-4f9a2c5b\n", "3:5", "never holds a value"},
		"duplicate":          {"image: a\nimage: b\n", "2:1", "twice"},
		"duplicate secret":   {"secrets:\n  A: {hosts: a.example}\n  A: {hosts: evil.example}\n", "3:3", "twice"},
		"duplicate inside":   {"secrets:\n  A:\n    hosts: [a.example]\n    hosts: [evil.example]\n", "4:5", "twice"},
		"case":               {"Image: tools\n", "1:1", "unknown key"},
		"10 MB":              {"image: |\n" + strings.Repeat(" x\n", 10<<20/3), ":1", "larger than 256 KiB"},
		"deep flow":          {"command: " + strings.Repeat("[", 100_000), "1:1", "nested too deeply"},
		"deep maps":          {"env: " + strings.Repeat("{a: ", 50_000), "1:", "nested too deeply"},
		"deep entries":       {"command: \n" + strings.Repeat("- ", 100_000), "2:1", "nested too deeply"},
		"deep blocks":        {deep(400), "1:1", "unknown key"},
		"deep columns":       {strings.Repeat(" ", 100_000) + "a: 1\n", "1:", "nested too deeply"},
		"laughs":             {"env: &a {A: x}\nimage: tools\n", "1:6", "anchors"},
		"alias":              {"image: *a\n", "1:8", "anchors"},
		"merge":              {"secrets:\n  <<: {A: {hosts: a.example}}\n", "2:3", "anchors"},
		"tag":                {"image: !!binary aGk=\n", "1:8", "tags"},
		"directive":          {"%YAML 1.1\n---\nimage: tools\n", "1:1", "tags and directives"},
		"key mark":           {"? image\n: tools\n", "1:1", "a key is a name"},
		"two documents":      {"image: a\n---\nimage: b\n", "3:", "second document"},
		"not UTF-8":          {"image: \xff\n", "1:1", "UTF-8"},
		"unclosed":           {"image: \"a\n", "", ""},
		"list of maps":       {"command:\n  - a: b\n", "2:", "not a text"},
		"no map":             {"- image\n", "1:1", ""},
		"text for truth":     {"weak-cage: \"true\"\n", "1:12", "true or false"},
		"yes":                {"weak-cage: yes\n", "1:12", "true or false"},
		"text for number":    {"cpus: two\n", "1:7", "number"},
		"truth for text":     {"image: true\n", "1:8", "not a text"},
		"null":               {"image:\n", "1:1", "nothing behind it"},
		"null rule":          {"secrets:\n  A:\n    hosts: [a.example]\n    scope:\n", "4:5", "nothing behind it"},
		"null argument":      {"command: [a, null]\n", "1:14", "not a text"},
		"secret's name":      {"secrets:\n  \"A=exec:touch x\":\n    hosts: [a.example]\n", "2:3", "name of a variable"},
		"source ends a host": {"secrets:\n  GITHUB_TOKEN:\n    source: keyring:svc/me@x.example\n", "2:3", "its hosts must be named"},
		"host with source":   {"secrets:\n  A:\n    hosts: [\"x@evil.example\"]\n", "2:3", "no host"},
		"no hosts":           {"secrets:\n  GITHUB_TOKEN: {hosts: []}\n", "2:3", "no hosts"},
		"variable":           {"env:\n  \"A=B\": c\n", "2:3", "no ="},
	}
	position := regexp.MustCompile(`cutout\.yaml:(\d+):(\d+): `)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var err error
			watched(test.text, func() { _, err = load(t, test.text) })
			switch {
			case err == nil:
				t.Fatal("it was accepted")
			case !position.MatchString(err.Error()):
				t.Errorf("no line and column: %v", err)
			case !strings.Contains(err.Error(), test.where), !strings.Contains(err.Error(), test.says):
				t.Errorf("want %s and %q, got %v", test.where, test.says, err)
			}
			if strings.Contains(err.Error()+Hint(err), "4f9a2c5b") {
				t.Errorf("the error repeats the value: %v", err)
			}
		})
	}
}

// TestStrangersFile: a file that others write runs nothing.
func TestStrangersFile(t *testing.T) {
	const runs = "secrets:\n  A:\n    source: \"exec:touch ran\"\n    hosts: [a.example]\n"
	path := filepath.Join(t.TempDir(), "cutout.yaml")
	if err := os.WriteFile(path, []byte(runs), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := LoadFile(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o646, 0o664} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := LoadFile(path); err == nil || !strings.Contains(err.Error(), "not yours alone") {
			t.Errorf("others can write it, %v: got %v", mode, err)
		}
	}
	os.Chmod(path, 0o644)
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	if err := os.Chown(path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := LoadFile(path); err == nil || !strings.Contains(err.Error(), "not yours alone") {
		t.Errorf("another owns it: got %v", err)
	}
	harmless := strings.Replace(runs, "exec:touch ran", "env:B", 1)
	if err := os.WriteFile(path, []byte(harmless), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := LoadFile(path); err != nil {
		t.Errorf("a file that runs nothing: %v", err)
	}
}

// TestOddFile: what is no file is not waited for.
func TestOddFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, "/dev/zero", filepath.Join(dir, "none")} {
		if _, _, _, err := LoadFile(path); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}

// TestTexts: texts are as they are written.
func TestTexts(t *testing.T) {
	f, err := load(t, `
image: tools
command: [echo, 1.10, 0x10, "yes", 2026-01-01, 'a: b', "# no comment"]
env:
  VERSION: 1.10
  PORT: 08080
  LANG:
  EMPTY: ""
  LONG: |
    two
    lines
scrub: on
memory: 512
`)
	if err != nil {
		t.Fatal(err)
	}
	var r Run
	f.Merge(&r, func(string) bool { return false })
	want := Run{Memory: "512"}
	want.Scrub = []string{"on"}
	want.Args = []string{"echo", "1.10", "0x10", "yes", "2026-01-01", "a: b", "# no comment"}
	want.Env = []string{"EMPTY=", "LANG", "LONG=two\nlines\n", "PORT=08080", "VERSION=1.10"}
	if d := cmp.Diff(want, r); d != "" {
		t.Error(d)
	}
}

// watched runs f on text, which must not keep the processor. What counts is the
// time that this process had of it, so that a busy machine makes no difference.
func watched(text string, f func()) {
	used := func() time.Duration {
		var u unix.Rusage
		unix.Getrusage(unix.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	limit, done := used()+20*time.Second, make(chan struct{})
	defer close(done)
	go func() {
		for used() < limit {
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
		}
		panic(fmt.Sprintf("stuck with %.1000q", text))
	}()
	f()
}

// FuzzFile: no file makes the parser panic or stay, or its error repeat what
// looks like a value.
func FuzzFile(f *testing.F) {
	f.Add([]byte("secrets:\n  A: {source: env:B, hosts: [a.example], exclusive: true}\nnet-rule: [allow@dns]\n"))
	f.Add([]byte("env: {A: , B: 1}\ncommand:\n- a\n- |\n  b\n"))
	f.Add([]byte("? a\n: &x [*x, <<: !!map {}]\n---\n..."))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxFile {
			return
		}
		const value = "Sk-Live-4F9A2C5B7D8E"
		for _, text := range []string{string(data), strings.ReplaceAll(string(data), "A", value)} {
			var err error
			watched(text, func() { _, _, err = readFile([]byte(text)) })
			if err != nil && strings.Contains(err.Error()+Hint(err), value) {
				t.Fatalf("%q: %v", text, err)
			}
		}
	})
}
