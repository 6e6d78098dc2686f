package policy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/secret"
)

func TestScope(t *testing.T) {
	repos := []secret.Scope{{Method: "GET", Path: "/repos/**"}, {Method: "*", Path: "/user"}, {Method: "POST", Path: "/v*/items"}}
	override := func(name, value string) http.Header { return http.Header{name: {value}} }
	tests := []struct {
		name, method, target string
		header               http.Header
		want                 bool
	}{
		{"in it", "GET", "/repos/a/b", nil, true},
		{"with a query", "GET", "/repos/a?x=/../..", nil, true},
		{"any method", "DELETE", "/user", nil, true},
		{"star in a segment", "POST", "/v1/items", nil, true},
		{"star is one segment", "POST", "/v1/x/items", nil, false},
		{"another method", "POST", "/repos/a", nil, false},
		{"another path", "GET", "/orgs/a", nil, false},
		{"the root of **", "GET", "/repos", nil, false},
		{"longer", "GET", "/user/keys", nil, false},
		{"beginning only", "GET", "/repositories/a", nil, false},
		{"another case", "GET", "/Repos/a", nil, false},
		{"no method", "", "/user", nil, false},
		{"no path", "GET", "", nil, false},
		{"not a path", "OPTIONS", "*", nil, false},

		{"up", "GET", "/repos/../orgs", nil, false},
		{"up and back", "GET", "/repos/../repos/a", nil, true},
		{"escaped up", "GET", "/repos/%2e%2E/orgs", nil, false},
		{"escaped twice", "GET", "/repos/%252e%252e/orgs", nil, false},
		{"escaped slash", "GET", "/repos/..%2forgs", nil, false},
		{"backslash", "GET", `/repos/..\orgs`, nil, false},
		{"escaped backslash", "GET", "/repos/..%5Corgs", nil, false},
		{"parameters", "GET", "/repos/..;x=1/orgs", nil, false},
		{"empty segments", "GET", "/repos//../../orgs", nil, false},
		{"escaped NUL", "GET", "/user%00/x", nil, false},
		{"escaped question mark", "GET", "/repos%3f/a", nil, false},
		{"harmless escape", "GET", "/repos/a%20b", nil, true},

		{"method override", "GET", "/repos/a", override("X-Http-Method-Override", "DELETE"), false},
		{"method override, harmless", "GET", "/repos/a", override("X-Http-Method-Override", " get "), true},
		{"another override", "GET", "/repos/a", override("X-Method-Override", "PUT"), false},
		{"a third", "GET", "/repos/a", override("X-Http-Method", "PUT"), false},
		{"with underscores", "GET", "/repos/a", override("X_HTTP_Method_Override", "PUT"), false},
		{"a list", "GET", "/repos/a", override("X-Http-Method-Override", "GET, PUT"), false},
		{"twice", "GET", "/repos/a", http.Header{"X-Http-Method-Override": {"GET", "PUT"}}, false},
		{"in the query", "GET", "/repos/a?_method=delete", nil, false},
		{"escaped in the query", "GET", "/repos/a?x=1;%5Fmethod=%64elete", nil, false},
		{"original URL", "GET", "/repos/a", override("X-Original-Url", "/orgs"), false},
		{"rewrite URL", "GET", "/repos/a", override("X-Rewrite-Url", "/orgs"), false},
		{"original URL in scope", "GET", "/repos/a", override("X-Original-Url", "/repos/b"), true},
		{"original URL, absolute", "GET", "/repos/a", override("X-Original-Url", "https://x/repos/b"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := Facts{Method: tt.method, Target: tt.target, Header: tt.header}
			if got := inScope(f, repos); got != tt.want {
				t.Errorf("%s %s %v: %v, want %v", tt.method, tt.target, tt.header, got, tt.want)
			}
		})
	}
}

// FuzzScope: whatever is written behind the prefix, what net/http and a
// cleaning server make of it stays within the scope.
func FuzzScope(f *testing.F) {
	for _, s := range []string{"a", "../x", "%2e%2e/x", "..;/x", `..\x`, "//..//..", "%252e%252e%252f", "a?_method=PUT"} {
		f.Add(s)
	}
	scopes := []secret.Scope{{Method: "GET", Path: "/repos/**"}}
	f.Fuzz(func(t *testing.T, rest string) {
		target := "/repos/" + rest
		if !inScope(Facts{Method: "GET", Target: target}, scopes) {
			return
		}
		p, _, _ := strings.Cut(target, "?")
		for _, read := range []string{p, unescape(p), unescape(unescape(p)), strings.ReplaceAll(unescape(p), `\`, "/"), withoutParameters(unescape(p))} {
			if clean := resolved(withoutEmpty(read)); !strings.HasPrefix(clean, "/repos/") {
				t.Fatalf("%q is in scope and is read as %q", target, clean)
			}
		}
	})
}
