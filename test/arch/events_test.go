package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// witnesses are what tests call that fail unless an event says what they are
// given: in the tests of one package or another, and of the corpus, each of
// whose probes is judged by the events.
var witnesses = []string{"expect", "refused", "told", "Recorded", "recorded", "reasons", "found", "forbidden", "refusedHello"}

// elsewhere are what a test reads in the log of the real program.
var elsewhere = map[string]string{
	"SourceUnavailable": "test/boundary.TestRefresh",
	"Lifecycle":         "test/boundary.TestLifecycle",
	"Limited":           "internal/keeper.TestLimited",
}

// TestEventsAreSeen: every reason, and every kind of event, is looked for by a
// test that fails if no event has it. Both are listed where they are declared.
func TestEventsAreSeen(t *testing.T) {
	seen := map[string][]string{}
	tests := map[string]bool{}
	walkTests(t, func(dir string, f *ast.File) {
		for _, d := range f.Decls {
			name := declName(d)
			tests[dir+"."+name] = true
			found, witness := mentions(d)
			if !witness {
				continue
			}
			for _, m := range found {
				seen[m] = append(seen[m], dir+"."+name)
			}
		}
	})
	declared := append(constants(t, "../../internal/policy/reason.go", "Reason"), constants(t, "../../internal/audit/event.go", "")...)
	if len(declared) < 40 {
		t.Fatalf("found only %v", declared)
	}
	for _, c := range declared {
		if other, ok := elsewhere[c]; ok {
			if !tests[other] {
				t.Errorf("%s is seen by %s, which is not there", c, other)
			}
		} else if len(seen[c]) == 0 && c != "None" {
			t.Errorf("no test sees an event of %s", c)
		}
	}
	for _, c := range slices.Sorted(maps.Keys(elsewhere)) {
		if !slices.Contains(declared, c) {
			t.Errorf("there is no %s", c)
		}
	}
}

// constants lists those that a file declares, of a type or of none.
func constants(t *testing.T, path, of string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				if id, ok := v.Type.(*ast.Ident); of == "" && v.Type == nil || ok && id.Name == of {
					out = append(out, v.Names[0].Name)
				}
			}
		}
	}
	return out
}

// walkTests calls f for every file of tests.
func walkTests(t *testing.T, f func(dir string, file *ast.File)) {
	t.Helper()
	for _, root := range []string{"internal", "test"} {
		err := filepath.WalkDir("../../"+root, func(path string, e fs.DirEntry, err error) error {
			if e != nil && e.Name() == "node_modules" {
				return fs.SkipDir
			}
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err == nil {
				f(filepath.ToSlash(filepath.Dir(strings.TrimPrefix(path, "../../"))), file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func declName(d ast.Decl) string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		return d.Name.Name
	case *ast.GenDecl:
		for _, s := range d.Specs {
			if v, ok := s.(*ast.ValueSpec); ok {
				return v.Names[0].Name
			}
		}
	}
	return strconv.Itoa(int(d.Pos()))
}

// mentions lists what of policy and audit a declaration names, and reports
// whether it looks at events.
func mentions(d ast.Decl) (found []string, witness bool) {
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && (x.Name == "policy" || x.Name == "audit") {
				found = append(found, n.Sel.Name)
			}
		case *ast.CallExpr:
			switch f := n.Fun.(type) {
			case *ast.Ident:
				witness = witness || slices.Contains(witnesses, f.Name)
			case *ast.SelectorExpr:
				witness = witness || slices.Contains(witnesses, f.Sel.Name)
			}
		case *ast.CompositeLit:
			id, ok := n.Type.(*ast.Ident)
			if a, isList := n.Type.(*ast.ArrayType); isList {
				id, ok = a.Elt.(*ast.Ident)
			}
			witness = witness || ok && id.Name == "probe"
		}
		return true
	})
	return found, witness
}
