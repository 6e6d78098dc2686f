// Package arch checks the arrows between packages: who may import whom.
package arch

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cutoutdev/cutout/"

// may says which packages of the module a package imports; empty means
// none. A package that is not listed, or an import that is not, fails the
// test: think about where it belongs, then write it down here.
var may = map[string]string{
	// Nouns: they know nothing of networks, machines and files.
	"internal/hostname": "",
	"internal/match":    "",
	"internal/secret":   "internal/hostname internal/match",
	"internal/policy":   "internal/hostname internal/secret",
	"internal/rewrite":  "internal/match internal/secret",
	"internal/audit":    "internal/policy",

	// One protocol each.
	"internal/pin":       "internal/hostname",
	"internal/ca":        "internal/hostname",
	"internal/hello":     "internal/hostname internal/socks",
	"internal/socks":     "",
	"internal/reframe":   "internal/hostname internal/policy",
	"internal/dns":       "internal/audit internal/hostname internal/pin internal/policy",
	"internal/coding":    "",
	"internal/websocket": "",
	"internal/egress":    "internal/hostname internal/policy internal/secret internal/socks",
	"internal/metrics":   "internal/audit internal/policy",
	"internal/otlp":      "internal/audit internal/hostname internal/secret",
	"internal/proxy": "internal/audit internal/ca internal/coding internal/conntrack internal/egress internal/hello internal/hostname internal/pin internal/policy " +
		"internal/reframe internal/rewrite internal/secret internal/splice internal/websocket",
	"internal/conntrack":      "internal/policy",
	"internal/relay":          "internal/audit internal/conntrack internal/hostname internal/policy",
	"internal/ingress":        "internal/audit internal/conntrack internal/policy internal/relay internal/splice",
	"internal/splice":         "",
	"internal/netstack":       "internal/netstack/frame",
	"internal/netstack/frame": "",
	"internal/forward":        "internal/hostname internal/socks",

	// The machine and what runs in it.
	"internal/image":       "",
	"internal/debian":      "",
	"internal/vm":          "",
	"internal/vm/cage":     "internal/memfile internal/privilege internal/seccomp",
	"internal/seccomp":     "",
	"internal/vm/kernel":   "",
	"internal/vm/qemu":     "internal/vm internal/vm/cage",
	"internal/vm/snapshot": "",
	"internal/rtnetlink":   "",
	"internal/roots":       "",
	"internal/memfile":     "",
	"internal/privilege":   "",
	"internal/tap":         "internal/rtnetlink",
	"internal/workload":    "internal/memfile internal/privilege internal/roots internal/tap",
	"internal/guest":       "internal/guest/wire",
	"internal/guest/wire":  "",
	"internal/guest/agent": "internal/guest/wire internal/roots internal/rtnetlink",

	// Where values come from.
	"internal/source":         "internal/secret",
	"internal/source/env":     "internal/source",
	"internal/source/file":    "internal/source",
	"internal/source/exec":    "internal/source",
	"internal/source/keyring": "internal/source",
	"internal/source/age":     "internal/source internal/source/file",
	"internal/source/vault":   "internal/source",
	"internal/source/helper": "internal/secret internal/memfile internal/source internal/source/age internal/source/env internal/source/exec " +
		"internal/source/file internal/source/keyring internal/source/vault internal/term",

	// What wires them.
	"internal/keeper": "internal/audit internal/ca internal/conntrack internal/dns internal/egress internal/forward internal/guest internal/hostname internal/image internal/ingress internal/metrics internal/netstack internal/netstack/frame " +
		"internal/otlp internal/pin internal/policy internal/proxy internal/relay internal/seccomp internal/secret internal/source internal/vm internal/vm/cage internal/vm/qemu internal/vm/snapshot",
	"internal/config": "internal/egress internal/hostname internal/ingress internal/keeper internal/otlp internal/policy internal/secret internal/source internal/source/helper",
	"internal/state":  "",
	"internal/term":   "",

	"cmd/cutout": "internal/audit internal/config internal/conntrack internal/debian internal/forward internal/hostname internal/image internal/keeper internal/policy " +
		"internal/rewrite internal/roots internal/secret internal/source/file internal/source/helper internal/state internal/tap internal/term internal/vm internal/vm/cage internal/vm/kernel internal/vm/qemu internal/vm/snapshot internal/workload",
	"cmd/cutout-agent": "internal/guest/agent",
}

// free are folders that may import what they like, because nothing that
// ships imports them.
var free = []string{"internal/testnet", "internal/vm/vmtest", "internal/netstack/netstacktest", "internal/hostname/internal/suffixgen", "internal/source/sourcetest", "test/", "examples/", "bench"}

// modules says which other modules a package may use, beside golang.org/x.
var modules = map[string]string{
	"internal/coding":         "github.com/andybalholm/brotli github.com/klauspost/compress",
	"internal/netstack":       "gvisor.dev/gvisor",
	"internal/image":          "github.com/Microsoft/hcsshim github.com/docker/cli github.com/google/go-containerregistry github.com/klauspost/compress github.com/ulikunitz/xz",
	"internal/debian":         "github.com/klauspost/compress github.com/ulikunitz/xz",
	"internal/vm/kernel":      "github.com/klauspost/compress github.com/pierrec/lz4 github.com/therootcompany/xz",
	"internal/keeper":         "github.com/landlock-lsm/go-landlock",
	"internal/vm/cage":        "github.com/landlock-lsm/go-landlock kernel.org/pub/linux/libs/security/libcap",
	"internal/guest/agent":    "github.com/creack/pty",
	"internal/workload":       "github.com/creack/pty",
	"internal/source/keyring": "github.com/zalando/go-keyring",
	"internal/source/age":     "filippo.io/age",
	"internal/config":         "github.com/goccy/go-yaml",
	"internal/metrics":        "github.com/prometheus/client_model github.com/prometheus/common",
	"internal/otlp":           "go.opentelemetry.io/proto/slim/otlp google.golang.org/protobuf",
	"cmd/cutout":              "github.com/spf13/cobra github.com/spf13/pflag",
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

// list returns the packages of the module, without their tests.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps,Standard", module+"...")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v", err)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

func isFree(name string) bool {
	return slices.ContainsFunc(free, func(f string) bool { return strings.HasPrefix(name, f) })
}

func TestImports(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if isFree(name) {
			continue
		}
		allowed, known := may[name]
		if !known {
			t.Errorf("%s: a new package; say in this test what it may import", name)
			continue
		}
		for _, imp := range p.Imports {
			own, ours := strings.CutPrefix(imp, module)
			switch {
			case ours && !slices.Contains(strings.Fields(allowed), own):
				t.Errorf("%s imports %s", name, own)
			case !ours && strings.Contains(strings.Split(imp, "/")[0], ".") && !strings.HasPrefix(imp, "golang.org/x/"):
				if !slices.ContainsFunc(strings.Fields(modules[name]), func(m string) bool { return strings.HasPrefix(imp, m) }) {
					t.Errorf("%s imports %s", name, imp)
				}
			}
		}
	}
}

// TestAgentHoldsNothing: what runs inside the guest links no code that
// handles values, so a mistake there cannot become a leak.
func TestAgentHoldsNothing(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != module+"cmd/cutout-agent" {
			continue
		}
		for _, dep := range p.Deps {
			own, ours := strings.CutPrefix(dep, module)
			if ours && !strings.HasPrefix(own, "internal/guest") && own != "internal/roots" && own != "internal/rtnetlink" {
				t.Errorf("the agent links %s", own)
			}
		}
		return
	}
	t.Error("there is no agent")
}

// TestNoValueComesBack: the package that holds values exports nothing that
// could return one. What it does return was looked at and is listed.
func TestNoValueComesBack(t *testing.T) {
	harmless := []string{
		"Kind", "String", "GoString", "MarshalText", // names of things, "[secret]"
		"Register", // a marker
		"Field",    // random text that names a request
		"Of",       // another form of the text that is given
		"Whole",    // a placeholder in a form
		"Kept",     // the same in the length of the value's form
		"Shape",    // a placeholder: of the value it has kind, length and alphabet
	}
	files, err := filepath.Glob("../../internal/secret/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("find the package: %v", err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !fn.Name.IsExported() || fn.Type.Results == nil || slices.Contains(harmless, fn.Name.Name) {
				continue
			}
			for _, result := range fn.Type.Results.List {
				if text := types.ExprString(result.Type); strings.Contains(text, "string") || strings.Contains(text, "byte") || strings.Contains(text, "func") {
					t.Errorf("%s: %s returns %s", filepath.Base(file), fn.Name.Name, text)
				}
			}
		}
	}
}

// TestNothingShippedUsesTestCode: testnet keeps what it receives in clear.
func TestNothingShippedUsesTestCode(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != module+"cmd/cutout" && p.ImportPath != module+"cmd/cutout-agent" {
			continue
		}
		for _, dep := range p.Deps {
			if own, ours := strings.CutPrefix(dep, module); ours && isFree(own) || dep == "testing" {
				t.Errorf("%s links %s", p.ImportPath, dep)
			}
		}
	}
}
