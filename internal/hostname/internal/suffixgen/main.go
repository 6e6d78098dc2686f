// Command suffixgen writes the names that have a public suffix below them,
// one per line, for package hostname.
//
// golang.org/x/net/publicsuffix answers questions about one name and lists
// nothing, but the rules stand in the test of its table, which is part of the
// module. Run it by `go generate ./internal/hostname`.
package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "suffixgen:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/net/publicsuffix").Output()
	if err != nil {
		return fmt.Errorf("find publicsuffix: %w", err)
	}
	rules, err := rules(filepath.Join(strings.TrimSpace(string(dir)), "table_test.go"))
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# %s\n", publicsuffix.List)
	for _, p := range parents(rules) {
		fmt.Fprintln(&text, p)
	}
	return os.WriteFile(out, []byte(text.String()), 0o644)
}

// rules reads the elements of `var rules = [...]string{…}`.
func rules(path string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return nil, err
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != "rules" || len(spec.Values) == 0 {
			return true
		}
		if list, ok := spec.Values[0].(*ast.CompositeLit); ok {
			for _, e := range list.Elts {
				s, _ := strconv.Unquote(e.(*ast.BasicLit).Value)
				out = append(out, s)
			}
		}
		return false
	})
	if len(out) < 5000 {
		return nil, errors.New("found too few rules: the format has changed")
	}
	return out, nil
}

// parents returns every name of two or more labels above some rule. Rules
// with "!" are exceptions and make no suffix.
func parents(rules []string) []string {
	set := make(map[string]bool)
	for _, r := range rules {
		if strings.HasPrefix(r, "!") {
			continue
		}
		for {
			_, rest, found := strings.Cut(r, ".")
			if !found || !strings.Contains(rest, ".") {
				break
			}
			set[rest], r = true, rest
		}
	}
	out := make([]string, 0, len(set))
	for p := range set {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}
