// Mutate shows that the corpus can fail: it takes one check at a time out of
// the code and runs the entries of ATTACKS.md that the check is for. An entry
// that passes without its check is an error, and so is a check that no longer
// stands where it did. Nothing in the tree is touched: the changed file is
// laid over it with go test -overlay.
//
// With -way the corpus is sent to a real cutout boundary, from which the check
// was taken out.
//
//	go run ./test/attack/mutate [-way unix|tap|connect|socks] [NAME]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A mutation takes one check out.
type mutation struct {
	name     string
	file     string // in internal/
	old, new string // old stands in file once
	entries  string // that must fail, as a pattern
}

var way = flag.String("way", "", "how the boundary is reached: unix, tap, connect or socks; empty: in the test's process")

func main() {
	flag.Parse()
	if err := run(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(names []string) error {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	caught, missed := 0, 0
	for _, m := range mutations {
		if len(names) > 0 && !slices.Contains(names, m.name) {
			continue
		}
		failed, err := m.try(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		verdict := summary(failed)
		if len(failed) > 0 {
			caught++
		} else {
			missed++
			verdict = "MISSED by " + m.entries
		}
		fmt.Printf("%-28s %s\n", m.name, verdict)
	}
	fmt.Printf("%d caught, %d missed\n", caught, missed)
	if missed > 0 || caught == 0 {
		return fmt.Errorf("the corpus does not notice")
	}
	return nil
}

// summary names the first probes and counts the others.
func summary(failed []string) string {
	const named = 3
	if len(failed) <= named {
		return strings.Join(failed, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(failed[:named], ", "), len(failed)-named)
}

var failure = regexp.MustCompile(`(?m)^(\S+ +\S.*?)  +(h[12]) .* FAILED$`)

// try runs the corpus without the check and returns the probes that fail.
func (m mutation) try(dir string) ([]string, error) {
	file, err := filepath.Abs(filepath.Join("internal", m.file))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return nil, fmt.Errorf("%q stands %d times in %s", m.old, n, m.file)
	}
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
		return nil, err
	}
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		return nil, err
	}
	test, program := filepath.Join(dir, "attack.test"), filepath.Join(dir, "cutout")
	builds := [][]string{{"test", "-c", "-vet=off", "-o", test, "./test/attack"}}
	args := []string{"-test.run", "TestCorpus/^(" + m.entries + ")$", "-test.timeout", "3m", "-test.parallel", "4"}
	if *way != "" {
		builds = append(builds, []string{"build", "-o", program, "./cmd/cutout"})
		args = append(args, "-way", *way, "-cutout", program)
	}
	for _, b := range builds {
		build := exec.Command("go", slices.Insert(b, 1, "-trimpath", "-ldflags=-s -w", "-overlay", overlay)...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build: %w: %s", err, out)
		}
	}
	cmd := exec.Command(test, args...)
	cmd.Dir = filepath.Join("test", "attack")
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(string(out), "0 passed") {
		return nil, fmt.Errorf("no entry is %s", m.entries)
	}
	var failed []string
	for _, x := range failure.FindAllStringSubmatch(string(out), -1) {
		failed = append(failed, strings.Join(strings.Fields(x[1]), " ")+" "+x[2])
	}
	if err != nil && len(failed) == 0 {
		return nil, fmt.Errorf("the corpus broke: %w: %s", err, out)
	}
	return failed, nil
}
