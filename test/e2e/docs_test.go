package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/test/script"
)

// elsewhere are commands of the documentation that this test does not run:
// they are what runs it, or install things.
var elsewhere = map[string]bool{
	"make demo":                     true, // CI runs both
	"make test":                     true,
	"make build":                    true, // done before any test
	"export PATH=$PWD/bin:$PATH":    true,
	"cutout setup":                  true, // TestOrdinaryUser runs it
	"export API_KEY=sk-live-4f9a2c": true, // the test has a value of its own
}

// TestDocs runs every command in the documentation's sessions, in order, and
// compares what it prints with what the session shows, if it shows anything.
// The names in it are served by this machine.
func TestDocs(t *testing.T) {
	t.Parallel()
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	// Images are imported and removed.
	if out, err := exec.Command("cp", "-r", "--sparse=always", filepath.Join(sharedHome, "kernel"), filepath.Join(sharedHome, "images"), home).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	prepareDocs(t, w, dir)
	makeRootfs(t, home, filepath.Join(dir, "rootfs.tar"))
	for _, file := range docFiles(t) {
		for _, c := range commands(t, file) {
			if elsewhere[c.line] {
				continue
			}
			name := c.line[:min(len(c.line), 60)]
			t.Run(name, func(t *testing.T) {
				line := strings.ReplaceAll(c.line, "127.0.0.1:8443", w.upstreams["API"].Addr().String())
				cmd := exec.Command("sh", "-c", line)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "CUTOUT_HOME="+home, "API_KEY="+newValue(), "GITHUB_TOKEN="+newValue(), "HOME="+dir, "PATH="+filepath.Join(dir, "shim")+":"+os.Getenv("PATH"))
				out, err := cmd.Output()
				if exit, ok := err.(*exec.ExitError); ok {
					t.Fatalf("%s: %v\n%s%s", c.line, err, out, exit.Stderr)
				} else if err != nil {
					t.Fatal(err)
				}
				if c.output != "" && !c.matches(string(out)) {
					t.Errorf("%s\nprints   %q\nthe documentation shows %q", c.line, out, c.output)
				}
			})
		}
	}
}

// prepareDocs makes what the commands mention: a root file system, a CA, and
// a cutout that lets this machine serve the names.
func prepareDocs(t *testing.T, w *world, dir string) {
	t.Helper()
	shim := fmt.Sprintf(`#!/bin/sh
# The sessions' cutout, with the names in them served by this machine.
verb=$1
[ "$verb" = run ] || [ "$verb" = boundary ] || exec %[1]s "$@"
shift
exec %[1]s $verb --connect-to api.example.com:443=%[2]s --tls-upstream-ca-cert %[3]s/ca.pem "$@"
`, cutout, w.upstreams["API"].Addr(), dir)
	for _, step := range []error{
		os.Mkdir(filepath.Join(dir, "shim"), 0o755),
		os.WriteFile(filepath.Join(dir, "shim", "cutout"), []byte(shim), 0o755),
		w.ca.WriteFile(filepath.Join(dir, "ca.pem")),
		os.Mkdir(filepath.Join(dir, "docs"), 0o755),
		os.WriteFile(filepath.Join(dir, "cutout.yaml"), script.Example(t, "../../docs/configuration.md"), 0o644),
		os.WriteFile(filepath.Join(dir, ".api-key"), []byte(newValue()+"\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "README.md"), []byte("hello\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "docs", "a.md"), []byte("hello\n"), 0o644),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
}

// makeRootfs takes a shell out of the default image, as an image of its own.
func makeRootfs(t *testing.T, home, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(cutout, "run", "-q", "-m", "256m", "--", "sh", "-c",
		"cd / && tar -c bin lib lib64 usr/bin/sh usr/bin/dash usr/bin/echo usr/lib64 usr/lib/x86_64-linux-gnu/libc.so.6 usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
	cmd.Env = append(os.Environ(), "CUTOUT_HOME="+home)
	cmd.Stdout = f
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

func docFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"../../README.md"}, files...)
}

// A docCommand is a line after "$ " in a console block and what follows it.
type docCommand struct{ line, output string }

func commands(t *testing.T, file string) []docCommand {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []docCommand
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
		for line := range strings.Lines(block[1]) {
			if command, found := strings.CutPrefix(line, "$ "); found {
				out = append(out, docCommand{line: strings.TrimSpace(command)})
			} else if len(out) > 0 {
				out[len(out)-1].output += line
			}
		}
	}
	return out
}

// matches reports whether each line shown is printed; times may differ.
func (c docCommand) matches(printed string) bool {
	clock := regexp.MustCompile(`\d\d:\d\d:\d\d\.\d\d\d`)
	printed = clock.ReplaceAllString(printed, "TIME")
	for line := range strings.Lines(clock.ReplaceAllString(c.output, "TIME")) {
		if !strings.Contains(printed, strings.TrimSpace(line)) {
			return false
		}
	}
	return true
}
