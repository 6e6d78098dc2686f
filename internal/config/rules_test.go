package config

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source/helper"
)

func comparePatterns(a, b hostname.Pattern) bool { return a == b }

// build parses rules for the secret TOK of a.example and OTHER of b.example.
func build(r Rules) (keeper.Spec, error) {
	env := map[string]string{"TOK": "value-of-tok-0001", "OTHER": "value-of-tok-0002", "PIN": "4711"}
	r.Secrets = append([]string{"TOK@a.example", "OTHER@*.b.example,b.example:8080"}, r.Secrets...)
	var spec keeper.Spec
	values := helper.FromEnv(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	_, err := r.bind(context.Background(), &spec, values, true)
	if err == nil {
		err = r.apply(&spec)
	}
	return spec, err
}

func TestSurfaces(t *testing.T) {
	tests := map[string]secret.Surfaces{
		"TOK=header":                               {Header: true},
		"TOK=header:x-name":                        {Headers: []string{"X-Name"}},
		"TOK=header,header:*,header:*":             {Header: true, Headers: []string{"*"}},
		"TOK=header:Cookie,header:Referer":         {Headers: []string{"Cookie", "Referer"}},
		"TOK=basic,query,path,websocket":           {Basic: true, Query: true, Path: true, WebSocket: true},
		"TOK=body":                                 {Body: []secret.BodyPart{{}}},
		"TOK=body:Application/JSON,body:/auth/key": {Body: []secret.BodyPart{{Type: "application/json"}, {Pointer: "/auth/key"}}},
		"TOK=body:api_key,body:/a~1b/~0":           {Body: []secret.BodyPart{{Field: "api_key"}, {Pointer: "/a~1b/~0"}}},
	}
	for in, want := range tests {
		spec, err := build(Rules{Surfaces: []string{in}})
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if d := cmp.Diff(want, spec.Secrets[0].Allowed()); d != "" {
			t.Errorf("%s: %s", in, d)
		}
		if spec.Secrets[1].Surfaces != nil {
			t.Errorf("%s changes another secret", in)
		}
	}
	spec, err := build(Rules{Surfaces: []string{"TOK=query", "TOK=path,query"}})
	if d := cmp.Diff(secret.Surfaces{Query: true, Path: true}, spec.Secrets[0].Allowed()); err != nil || d != "" {
		t.Errorf("two flags do not add up: %v %s", err, d)
	}
}

func TestScopes(t *testing.T) {
	spec, err := build(Rules{Scopes: []string{"TOK=GET /repos/**", "TOK=* /a/*/b", "TOK=/user", "TOK=PROPFIND /x-*.json", "TOK=LIST /v1/*"}})
	want := []secret.Scope{{Method: "GET", Path: "/repos/**"}, {Method: "*", Path: "/a/*/b"}, {Method: "*", Path: "/user"}, {Method: "PROPFIND", Path: "/x-*.json"}, {Method: "LIST", Path: "/v1/*"}}
	if d := cmp.Diff(want, spec.Secrets[0].Scopes); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

func TestViolations(t *testing.T) {
	spec, err := build(Rules{OnViolation: []string{"block,hold", "TOK=passthrough:c.example,*.d.example", "OTHER=block-and-terminate"}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(secret.Violation{Action: secret.Block, Hold: true}, spec.OnViolation, cmp.Comparer(comparePatterns)); d != "" {
		t.Error(d)
	}
	own := secret.Violation{Action: secret.Passthrough, Hosts: []hostname.Pattern{pattern(t, "c.example"), pattern(t, "*.d.example")}}
	if d := cmp.Diff(&own, spec.Secrets[0].OnViolation, cmp.Comparer(comparePatterns)); d != "" {
		t.Error(d)
	}
	if spec.Secrets[1].OnViolation.Action != secret.BlockAndTerminate {
		t.Errorf("got %v", spec.Secrets[1].OnViolation)
	}
}

func TestExceptions(t *testing.T) {
	spec, err := build(Rules{
		Secrets:    []string{"PIN@*.github.io", "ANY=env:TOK@*:*"},
		AllowShort: []string{"PIN"}, AllowSharedSuffix: []string{"*.GitHub.io."}, AllowAnyHost: []string{"ANY"},
		Exclusive: []string{"TOK"}, AllowPlain: []string{"OTHER@B.example.", "OTHER@x.b.example", "OTHER@b.example"},
		AllowUnverified: []string{"TOK@a.example"}, NoVerify: []string{"a.example", "other.example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	tok, tok2, pin, any := spec.Secrets[0], spec.Secrets[1], spec.Secrets[2], spec.Secrets[3]
	switch {
	case !tok.Exclusive || tok2.Exclusive:
		t.Error("exclusive")
	case !slices.Equal(tok2.Plain, []hostname.Name{"b.example", "x.b.example"}) || tok.Plain != nil:
		t.Errorf("plain: %v, %v", tok.Plain, tok2.Plain)
	case !slices.Equal(tok.Unverified, []hostname.Name{"a.example"}) || len(spec.TLS.NoVerify) != 2:
		t.Errorf("unverified: %v, %v", tok.Unverified, spec.TLS.NoVerify)
	case !pin.Short || tok.Short:
		t.Error("short")
	case pin.Hosts[0].Pattern.String() != "*.github.io" || any.Hosts[0] != secret.Host{Pattern: hostname.Any()}:
		t.Errorf("hosts %v, %v", pin.Hosts, any.Hosts)
	}
}

func TestScrubRules(t *testing.T) {
	spec, err := build(Rules{Scrub: []string{"all", "*.a.example=lax", "b.example=off", "on"}})
	if err != nil {
		t.Fatal(err)
	}
	one, two := pattern(t, "*.a.example"), pattern(t, "b.example")
	want := []keeper.ScrubRule{{Mode: "all"}, {Hosts: &one, Mode: "lax"}, {Hosts: &two, Mode: "off"}, {Mode: "on"}}
	if d := cmp.Diff(want, spec.Scrub, cmp.Comparer(comparePatterns)); d != "" {
		t.Error(d)
	}
}

// TestScrubAll: what is not opened cannot be searched.
func TestScrubAll(t *testing.T) {
	lookup := func(string) (string, bool) { return "value-of-tok-0001", true }
	for intercept, ok := range map[string]bool{"": false, "auto": false, "off": false, "all": true} {
		r := Run{Boundary: Boundary{Rules: Rules{Secrets: []string{"TOK@a.example"}, Scrub: []string{"all"}}, Intercept: intercept}}
		if _, err := r.Build(t.Context(), lookup, helper.FromEnv(lookup)); (err == nil) != ok || !ok && Hint(err) != "add --tls-intercept all" {
			t.Errorf("%q: %v", intercept, err)
		}
	}
}

// TestRulesRefused holds every mistake that a flag about secrets can have,
// what the error says and what the hint advises. No error shows what stands
// where a value could.
func TestRulesRefused(t *testing.T) {
	surface := func(s ...string) Rules { return Rules{Surfaces: s} }
	scope := func(s ...string) Rules { return Rules{Scopes: s} }
	violation := func(s ...string) Rules { return Rules{OnViolation: s} }
	const leak = "hunter2-swordfish"
	tests := []struct {
		name string
		r    Rules
		want string // in the error
		hint string // in the hint
	}{
		{"surface without name", surface("query"), "invalid --surface", "NAME=LIST"},
		{"surface without list", surface("TOK="), "invalid --surface", "surfaces are"},
		{"surface of no secret", surface("TOKK=query"), "there is no secret TOKK", "did you mean TOK"},
		{"surface misspelt", surface("TOK=headr"), "--surface TOK: unknown surface", "did you mean header?"},
		{"surface misspelt with detail", surface("TOK=bdy:/a"), "unknown surface", "did you mean body?"},
		{"surface that is a value", surface("TOK=" + leak), "unknown surface", "surfaces are"},
		{"surface with an empty item", surface("TOK=query,"), "unknown surface", "separated by commas"},
		{"narrowed query", surface("TOK=query:key"), "query cannot be narrowed", "write query"},
		{"no header name", surface("TOK=header:"), "not followed by the name", "header:X-Name"},
		{"no token", surface("TOK=header:" + leak + " x"), "not followed by the name", "header:X-Name"},
		{"header of framing", surface("TOK=header:content-length"), "never go into Content-Length", ""},
		{"header of the proxy", surface("TOK=header:Proxy-Authorization"), "never go into Proxy-Authorization", ""},
		{"header Host", surface("TOK=header:host"), "never go into Host", ""},
		{"empty body part", surface("TOK=body:"), "not followed by what", "body:FIELD"},
		{"bad pointer", surface("TOK=body:/a~2"), "invalid JSON pointer", "RFC 6901"},
		{"bad type", surface("TOK=body:application/*"), "invalid media type", "body:application/json"},

		{"scope without name", scope("GET /"), "invalid --scope", "write --scope"},
		{"scope without path", scope("TOK=GET"), "--scope TOK is not a method and a path", "write --scope"},
		{"scope with more", scope("TOK=GET / HTTP/1.1"), "is not a method", "write --scope"},
		{"method in lower case", scope("TOK=get /"), "not in capital letters", "did you mean GET?"},
		{"method misspelt", scope("TOK=GTE /x"), "not a usual one", "did you mean GET?"},
		{"method nearly right", scope("TOK=PATC /x"), "not a usual one", "did you mean PATCH?"},
		{"no slash", scope("TOK=GET repos/**"), "does not begin with a slash", ""},
		{"query in path", scope("TOK=GET /a?b"), "the path holds", ""},
		{"escape in path", scope("TOK=GET /a%2fb"), "the path holds", ""},
		{"dots", scope("TOK=GET /a/../b"), "empty segment", ""},
		{"empty segment", scope("TOK=GET /a//b"), "empty segment", ""},
		{"stars in the middle", scope("TOK=GET /a/**/b"), "not the last segment", ""},
		{"stars in a segment", scope("TOK=GET /a**"), "not the last segment", ""},

		{"action misspelt", violation("blok"), "--on-violation: unknown action", "did you mean block?"},
		{"action of a secret misspelt", violation("TOK=pasthrough"), "--on-violation TOK: unknown action", "did you mean passthrough?"},
		{"action that is a value", violation(leak), "unknown action", "use block"},
		{"option misspelt", violation("block,hodl"), "unknown option", "did you mean hold?"},
		{"hold what passes", violation("passthrough,hold"), "refuses nothing", "block,hold"},
		{"hosts for block", violation("block:a.example"), "only passthrough takes hosts", "write block"},
		{"no host", violation("passthrough:"), "--on-violation", ""},
		{"twice", violation("block", "passthrough"), "given twice for the sandbox", ""},
		{"twice for one", violation("TOK=block", "TOK=passthrough"), "given twice for TOK", ""},
		{"action of no secret", violation("NOPE=block"), "there is no secret NOPE", ""},

		{"plain of no secret", Rules{AllowPlain: []string{"NOPE@a.example"}}, "there is no secret NOPE", ""},
		{"plain without host", Rules{AllowPlain: []string{"TOK"}}, "invalid --allow-plain", "NAME@HOST"},
		{"plain to another host", Rules{AllowPlain: []string{"TOK@c.example"}}, "c.example is not a host of TOK", "--secret TOK@c.example"},
		{"plain to a wildcard", Rules{AllowPlain: []string{"OTHER@*.b.example"}}, "not one host", "one exact name"},
		{"plain with a port", Rules{AllowPlain: []string{"OTHER@b.example:8080"}}, "not one host", "without * and port"},
		{"unverified alone", Rules{AllowUnverified: []string{"TOK@a.example"}}, "the certificate of a.example is verified", "--tls-no-verify-upstream-for a.example"},
		{"unverified elsewhere", Rules{AllowUnverified: []string{"TOK@a.example"}, NoVerify: []string{"b.example"}}, "is verified", ""},
		{"unverified other host", Rules{AllowUnverified: []string{"TOK@c.example"}, NoVerify: []string{"c.example"}}, "is not a host of TOK", ""},
		{"no verify for many", Rules{NoVerify: []string{"*.a.example"}}, "not one host", ""},

		{"star", Rules{Secrets: []string{"PIN@*"}, AllowShort: []string{"PIN"}}, "every server", "--allow-any-host PIN"},
		{"star of another", Rules{Secrets: []string{"ANY=env:TOK@*"}, AllowAnyHost: []string{"TOK"}}, "every server", ""},
		{"any host for nothing", Rules{AllowAnyHost: []string{"TOK"}}, "TOK does not go to *", ""},
		{"shared", Rules{Secrets: []string{"ANY=env:TOK@*.github.io"}}, "different owners", "--allow-shared-suffix '*.github.io'"},
		{"shared but another", Rules{Secrets: []string{"ANY=env:TOK@*.github.io"}, AllowSharedSuffix: []string{"*.com"}}, "different owners", ""},
		{"shared for nothing", Rules{AllowSharedSuffix: []string{"*.github.io"}}, "no secret has this host", ""},
		{"not shared", Rules{AllowSharedSuffix: []string{"*.a.example"}}, "needs no permission", ""},
		{"short", Rules{Secrets: []string{"PIN@a.example"}}, "shorter than 8 bytes", "--allow-short PIN"},
		{"short of no secret", Rules{AllowShort: []string{"NOPE"}}, "there is no secret NOPE", ""},
		{"exclusive of no secret", Rules{Exclusive: []string{"NOPE"}}, "there is no secret NOPE", ""},

		{"scrub misspelt", Rules{Scrub: []string{"of"}}, "unknown mode", "--scrub [HOST=]on|lax|off"},
		{"scrub a value", Rules{Scrub: []string{"a.example=" + leak}}, "unknown mode", ""},
		{"scrub no host", Rules{Scrub: []string{"c.example=off"}}, "c.example is no host of a secret", "as in --secret"},
		{"all for one", Rules{Scrub: []string{"a.example=all"}}, "takes none", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := build(tt.r)
			if err == nil {
				t.Fatal("accepted")
			}
			text, hint := err.Error(), Hint(err)
			if !strings.Contains(text, tt.want) || !strings.Contains(hint, tt.hint) {
				t.Errorf("got %q (%q), want %q (%q)", text, hint, tt.want, tt.hint)
			}
			if strings.Contains(text+hint, leak) {
				t.Errorf("repeats what may be a value: %q (%q)", text, hint)
			}
		})
	}
}

// TestCheck needs no values, but does not overlook one either.
func TestCheck(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	spec, err := Rules{Secrets: []string{"TOK@a.example"}, Surfaces: []string{"TOK=query"}}.Check(t.Context(), none)
	if err != nil || !spec.Secrets[0].Allowed().Query {
		t.Errorf("got %+v, %v", spec.Secrets, err)
	}
	some := func(string) (string, bool) { return "value-of-tok-0001", true }
	_, err = Rules{Secrets: []string{"TOK@a.example"}, Surfaces: []string{"TOK=value-of-tok-0001"}}.Check(t.Context(), some)
	if err == nil || !strings.Contains(err.Error(), "the value of TOK stands in --surface") {
		t.Errorf("got %v", err)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"header", "basic", "query"}
	for in, want := range map[string]string{"headers": "header", "haeder": "header", "Query": "query", "b": "", "": "", "cookie": "", strings.Repeat("x", 1<<20): ""} {
		if got := Nearest(in, words); got != want {
			t.Errorf("%.20q: got %q", in, got)
		}
	}
}
