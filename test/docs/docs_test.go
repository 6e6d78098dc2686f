// Package docs checks what the documentation says against the code. The
// commands in it are run by test/e2e.
package docs

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/policy"
)

const root = "../.."

// TestReasons: each reason that a user can meet has a section of its own,
// and each section a reason.
func TestReasons(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "docs/reasons.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile("(?m)^## `(.*)`$").FindAllStringSubmatch(string(data), -1)
	documented := map[policy.Reason]bool{}
	for _, s := range sections {
		documented[policy.Reason(s[1])] = true
	}
	for _, r := range policy.Reasons() {
		if !documented[r] {
			t.Errorf("docs/reasons.md does not document %s", r)
		}
		if r.What() == "" || r.Hint() == "" {
			t.Errorf("%s does not say what it means or what to change", r)
		}
		delete(documented, r)
	}
	for r := range documented {
		t.Errorf("docs/reasons.md documents %s, which is no reason", r)
	}
}

// TestInvariants: each numbered invariant of SECURITY.md names tests, and
// each named test exists.
func TestInvariants(t *testing.T) {
	f, err := os.Open(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	invariant := regexp.MustCompile(`^(\d+)\. `)
	named := regexp.MustCompile("`([a-z0-9/_-]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	script := regexp.MustCompile("`(test/e2e/testdata/[a-z0-9-]+\\.txt|cmd/cutout/testdata/[a-z0-9-]+\\.txt)`")
	last, tests := "", map[string]int{}
	var order []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Text()
		if m := invariant.FindStringSubmatch(line); m != nil {
			last = m[1]
			order = append(order, last)
		} else if line != "" && !strings.HasPrefix(line, " ") {
			last = ""
		}
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			if !hasTest(t, filepath.Join(root, m[1]), m[2]) {
				t.Errorf("SECURITY.md names %s.%s, which does not exist", m[1], m[2])
			}
			tests[last]++
		}
		for _, m := range script.FindAllStringSubmatch(line, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("SECURITY.md names a script that does not exist: %v", err)
			}
			tests[last]++
		}
	}
	if len(order) < 10 {
		t.Fatalf("found %d invariants", len(order))
	}
	for _, n := range order {
		if tests[n] == 0 {
			t.Errorf("invariant %s names no test", n)
		}
	}
}

// hasTest reports whether a test file of the package in dir declares name.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		data, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(data), "\nfunc "+name+"(")
	})
}

// TestMakeTargets: the README's make commands exist.
func TestMakeTargets(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := regexp.MustCompile(`(?m)^\$ make ([a-z-]+)$`).FindAllStringSubmatch(string(readme), -1)
	if len(targets) == 0 {
		t.Error("the README has no make commands")
	}
	for _, m := range targets {
		if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
			t.Errorf("make %s of the README is not in the Makefile", m[1])
		}
	}
}

// TestLinks: the documents that documents point to are there.
func TestLinks(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join(root, "README.md"), filepath.Join(root, "SECURITY.md"))
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	}
}
