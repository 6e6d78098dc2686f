package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source/helper"
	"github.com/google/go-cmp/cmp"
)

func pattern(t testing.TB, s string) hostname.Pattern {
	t.Helper()
	p, err := hostname.ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseSecret(t *testing.T) {
	tests := map[string]SecretFlag{
		"T@api.example.com": {"T", Source{"env", "T"}, []secret.Host{{Pattern: pattern(t, "api.example.com"), Port: 443}}, false},
		"T@API.Example.com.,*.b.example:8443,c.example:*": {"T", Source{"env", "T"}, []secret.Host{
			{Pattern: pattern(t, "api.example.com"), Port: 443},
			{Pattern: pattern(t, "*.b.example"), Port: 8443},
			{Pattern: pattern(t, "c.example")},
		}, false},
		"GH_TOKEN=file:gh": {"GH_TOKEN", Source{"file", "gh"}, []secret.Host{
			{Pattern: pattern(t, "api.github.com"), Port: 443},
			{Pattern: pattern(t, "github.com"), Port: 443},
			{Pattern: pattern(t, "uploads.github.com"), Port: 443},
		}, true},
		"T=env:OTHER@a.example":               {"T", Source{"env", "OTHER"}, []secret.Host{{Pattern: pattern(t, "a.example"), Port: 443}}, false},
		"T=file:~/a@b/c:d@a.example":          {"T", Source{"file", "~/a@b/c:d"}, []secret.Host{{Pattern: pattern(t, "a.example"), Port: 443}}, false},
		"T=exec:op read 'op://a/b'@a.example": {"T", Source{"exec", "op read 'op://a/b'"}, []secret.Host{{Pattern: pattern(t, "a.example"), Port: 443}}, false},
		"T=keyring:svc/me@x.org@a.example":    {"T", Source{"keyring", "svc/me@x.org"}, []secret.Host{{Pattern: pattern(t, "a.example"), Port: 443}}, false},
		"T=vault:kv/app#key@a.example":        {"T", Source{"vault", "kv/app#key"}, []secret.Host{{Pattern: pattern(t, "a.example"), Port: 443}}, false},
		"T=age:/x.age@a.example":              {"T", Source{"age", "/x.age"}, []secret.Host{{Pattern: pattern(t, "a.example"), Port: 443}}, false},
	}
	for in, want := range tests {
		got, err := ParseSecret(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if d := cmp.Diff(want, got, cmp.Comparer(func(a, b hostname.Pattern) bool { return a == b })); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}

// TestInlineValueIsNotRepeated: whatever a user writes where a value does
// not belong must not come back in the error, which lands in logs.
func TestInlineValueIsNotRepeated(t *testing.T) {
	const value = "hunter2-swordfish"
	for _, in := range []string{
		"T=" + value + "@api.example.com",
		"T=" + value,
		"T=env:" + value + "@api.example.com",
		"T=ghp:" + value + "@api.example.com",
		"T=file@" + value,
		"T=exec",
		"T=File:" + value + "@api.example.com",
		"T=https://user:" + value + "@api.example.com",
		"T=pa@" + value,
		value + "@api.example.com",
		value,
	} {
		_, err := ParseSecret(in)
		if err == nil {
			t.Errorf("%q was accepted", in)
		} else if text := err.Error() + Hint(err); strings.Contains(text, value) {
			t.Errorf("error repeats the value: %s", text)
		} else if Hint(err) == "" {
			t.Errorf("no hint with %q", err)
		}
	}
}

func TestParseSecretRefuses(t *testing.T) {
	for _, in := range []string{
		"", "@a.example", "T@", "T", "T@*", "T@*.com", "T@*.github.io", "T@good.*", "T@a.example,", "T@127.0.0.1",
		"T=file:@a.example", "T=env:a b@a.example", "T@a.example:0", "T@a.example:65536", "T@a.example:https", "T@a_b c", "1T@a.example", "T U@a.example",
	} {
		if f, err := ParseSecret(in); err == nil {
			t.Errorf("%q was accepted: %+v", in, f)
		}
	}
}

func TestBuild(t *testing.T) {
	env := map[string]string{"TOK": "value-of-t", "EMPTY": "", "LANG": "C", "LEAK": "xvalue-of-tx"}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }

	r := Run{
		Boundary: Boundary{
			Rules:     Rules{Secrets: []string{"TOK@a.example"}, OnViolation: []string{"block", "TOK=passthrough:b.example"}},
			ConnectTo: []string{"a.example:443=127.0.0.1:8443"}, Nameservers: []string{"::1", "127.0.0.1:5353"},
		},
		Env: []string{"A=1", "LANG", "UNSET"}, Memory: "2g", CPUs: 2,
	}
	spec, err := r.Build(t.Context(), lookup, helper.FromEnv(lookup))
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.Secrets[0].Placeholder; got != "$MSB_TOK" {
		t.Errorf("got placeholder %q", got)
	}
	if d := cmp.Diff([]string{"A=1", "LANG=C"}, spec.Guest.Env); d != "" {
		t.Error(d)
	}
	if spec.Machine.MemoryMiB != 2048 || spec.Machine.CPUs != 2 || spec.OnViolation.Action != secret.Block {
		t.Errorf("got %+v", spec)
	}
	if spec.Net.ConnectTo[0].To != netip.MustParseAddrPort("127.0.0.1:8443") || spec.Net.Nameservers[0].Port() != 53 {
		t.Errorf("got %+v", spec.Net)
	}

	bad := map[string]Run{
		"is not set":        {Boundary: Boundary{Rules: Rules{Secrets: []string{"MISSING@a.example"}}}},
		"is empty":          {Boundary: Boundary{Rules: Rules{Secrets: []string{"EMPTY@a.example"}}}},
		"given twice":       {Boundary: Boundary{Rules: Rules{Secrets: []string{"TOK@a.example", "TOK@b.example"}}}},
		"is a secret":       {Boundary: Boundary{Rules: Rules{Secrets: []string{"TOK@a.example"}}}, Env: []string{"TOK"}},
		"in -e LEAK":        {Boundary: Boundary{Rules: Rules{Secrets: []string{"TOK@a.example"}}}, Env: []string{"LEAK"}},
		"in the command":    {Boundary: Boundary{Rules: Rules{Secrets: []string{"TOK@a.example"}}, Args: []string{"sh", "-c", "echo value-of-t"}}},
		"no secret U":       {Boundary: Boundary{Rules: Rules{Placeholders: []string{"U=placeholder"}}}},
		"shorter than 8":    {Boundary: Boundary{Rules: Rules{Secrets: []string{"TOK@a.example"}, Placeholders: []string{"TOK=short"}}}},
		"must be inter":     {Boundary: Boundary{Rules: Rules{Secrets: []string{"TOK@a.example"}}, Bypass: []string{"*.b.example", "a.example"}}},
		"must be absolute":  {Dir: "tmp"},
		"invalid memory":    {Memory: "lots"},
		"outside of what":   {Memory: "64m"},
		"writable":          {Volumes: []string{"/tmp:/tmp"}},
		"no such file":      {Volumes: []string{"/does/not/exist:/x:ro"}},
		"unknown --tls-":    {Boundary: Boundary{Intercept: "some"}},
		"--audit: unknown":  {Boundary: Boundary{Audit: "off"}},
		"invalid --connect": {Boundary: Boundary{ConnectTo: []string{"a.example=127.0.0.1:1"}}},
		"invalid --dns-":    {Boundary: Boundary{Nameservers: []string{"resolver"}}},
		"unknown action":    {Boundary: Boundary{Rules: Rules{OnViolation: []string{"explode"}}}},
		"read CA bundle":    {Boundary: Boundary{UpstreamCAs: []string{"/does/not/exist"}}},
		"holds no cert":     {Boundary: Boundary{UpstreamCAs: []string{"/dev/null"}}},
	}
	for want, r := range bad {
		if _, err := r.Build(t.Context(), lookup, helper.FromEnv(lookup)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		} else if strings.Contains(err.Error(), "value-of-t") {
			t.Errorf("%q repeats the value", err)
		}
	}
}

func TestParseMemory(t *testing.T) {
	for in, want := range map[string]int{"512": 512, "512m": 512, "512M": 512, "512MiB": 512, "1g": 1024, "2G": 2048} {
		if got, err := ParseMemory(in); got != want || err != nil {
			t.Errorf("%s: got %d, %v", in, got, err)
		}
	}
}
