package attack

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// C7, D2, D8: placeholders in bodies, and how a value stands in them.
var sectionBody = append([]probe{
	{entry: "C7", name: "10^4 copies in one body", change: inBodies, run: post(strings.Repeat(P+"\n", 10_000), "Content-Type", "text/plain"), want: forbidden(policy.TooMany), check: nothingWhole},
	{entry: "D2", name: "a body, its surface off", run: post("x "+P, "Content-Type", "text/plain"), want: want{status: []int{200}, carried: true}, check: carriedOnRecord},
	{entry: "D8", name: "gzip cut short", change: inBodies, run: post(zipped(P)[:20], "Content-Type", "text/plain", "Content-Encoding", "gzip"), want: malformed, check: nothingWhole},
	{entry: "D8", name: "no Content-Type", change: inBodies, run: post("\x00" + P), want: forbidden(policy.NeedsEqualLength), check: nothingWhole},
	{entry: "D8", name: "a body that ends early", change: inBodies, run: endsEarly, only: "h1", want: want{status: []int{0, 400}}, check: nothingWhole},
	{entry: "D8", name: "a body longer than it says", run: headThenData(5, "hello, world"), only: "h2", want: want{status: []int{0, 400}}, check: nothingWhole},
}, append(signed(), placed()...)...)

// with lets change alter the secret.
func with(change func(*secret.Secret)) func(*boundary) {
	return func(b *boundary) { change(b.Secret) }
}

func surfaces(s secret.Surfaces) func(*boundary) {
	return with(func(x *secret.Secret) { x.Surfaces = &s })
}

// placed are D2: the value is encoded for the place where it lands.
func placed() []probe {
	quoted := `a"b\c<d>&e f%g+h/0123456789`
	var out []probe
	for _, x := range []struct{ name, kind, body, want string }{
		{"JSON string", "application/json", `{"k":"` + P + `"}`, `{"k":` + strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(strconv.Quote(quoted)) + `}`},
		{"JSON string, escaped", "application/json", `{"k":"\u0024MSB_API_KEY"}`, `{"k":` + strconv.Quote(quoted) + `}`},
		{"form field", "application/x-www-form-urlencoded", "k=%24MSB_API_KEY&x=1", "k=a%22b%5Cc%3Cd%3E%26e%20f%25g%2Bh%2F0123456789&x=1"},
		{"XML text", "application/xml", "<a>" + P + "</a>", `<a>a&#34;b\c&lt;d&gt;&amp;e f%g+h/0123456789</a>`},
		{"XML attribute", "application/xml", `<a k="` + P + `"/>`, `<a k="a&#34;b\c&lt;d&gt;&amp;e f%g+h/0123456789"/>`},
	} {
		out = append(out, probe{
			entry: "D2", name: x.name, want: want{status: []int{200}}, run: post(x.body, "Content-Type", x.kind),
			change: func(b *boundary) { b.Secret.Value = b.Value(quoted); inBodies(b) },
			check: func(b *boundary) error {
				return exactLength(x.want)(b)
			},
		})
	}
	for _, x := range []struct{ name, path, want string }{
		{"query, its surface on", "/echo?k=" + P, "/echo?k=" + V},
		{"query, escaped, its surface on", "/echo?k=%24MSB%5fAPI_KEY", "/echo?k=" + V},
		{"path, its surface on", "/echo/" + P + "/x", "/echo/" + V + "/x"},
	} {
		out = append(out, probe{
			entry: "D2", name: x.name, want: substituted, run: ask("GET", x.path, "good.test"), change: surfaces(secret.Surfaces{Query: true, Path: true}),
			check: func(b *boundary) error {
				if got := first(b).Target; got != x.want {
					return fmt.Errorf("target is %q, want %q", got, x.want)
				}
				return nil
			},
		})
	}
	return out
}

// signed are the fields of D8 that say what bytes the body has.
func signed() []probe {
	var out []probe
	for _, x := range [][2]string{
		{"Content-MD5", "x"},
		{"Content-Digest", "sha-256=:x:"},
		{"X-Amz-Content-Sha256", "x"},
		{"X-Hub-Signature-256", "x"},
		{"Signature-Input", `a=("content-digest")`},
		{"X-Amz-Checksum-Crc32", "x"},
	} {
		out = append(out, probe{
			entry: "D8", name: "a body with " + x[0], change: inBodies, want: forbidden(policy.BodyIsSigned), check: nothingWhole,
			run: post("x "+P, "Content-Type", "text/plain", x[0], x[1]),
		})
	}
	return out
}

func endsEarly(b *boundary) outcome {
	c, err := b.Secure(target{})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	go func() {
		io.WriteString(c, postGood+"Content-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"+P)
		c.CloseWrite()
	}()
	return b.raw(c, "", 1)[0]
}

func headThenData(length int, data string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		f := b.frames(c)
		f.Head(1, false, ":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test", "content-length", strconv.Itoa(length))
		f.WriteData(1, true, []byte(data))
		return f.outcome(1)
	}
}

// first is the first request that good.test got, if any.
func first(b *boundary) testnet.Request {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if got, err := b.Good.Wait(ctx, 1); err == nil {
		return got[0]
	}
	return testnet.Request{BodyErr: "no request"}
}

func exactLength(body string) func(*boundary) error {
	return func(b *boundary) error {
		r := first(b)
		if string(r.Body) != body || r.BodyErr != "" || r.Header.Get("Content-Length") != strconv.Itoa(len(body)) {
			return fmt.Errorf("the upstream got %q of %s, %s; want %q", r.Body, r.Header.Get("Content-Length"), r.BodyErr, body)
		}
		return nil
	}
}

// D7, B12, B13: which requests of the right host may carry the value.
var sectionScope = join(foreignCredentials(), readings())

func foreignCredentials() []probe {
	var out []probe
	for _, x := range []struct{ name, path, field, value string }{
		{"as CGI reads it", "/echo", "X_Api_Key", "own"},
		{"a password", "/echo", "Authorization", "Basic " + b64("user:own")},
		{"a cookie", "/echo", "Cookie", "session=own"},
	} {
		out = append(out, probe{
			entry: "D7", name: x.name, change: exclusive, run: ask("GET", x.path, "good.test", x.field, x.value),
			want: forbidden(policy.ForeignCredential), check: nothingSent,
		})
	}
	return out
}

func nothingSent(b *boundary) error {
	if n := len(b.Good.Requests()); n > 0 {
		return fmt.Errorf("the upstream got %d requests", n)
	}
	return nil
}

func readings() []probe {
	scoped := with(func(s *secret.Secret) { s.Scopes = []secret.Scope{{Method: "GET", Path: "/echo/**"}} })
	var out []probe
	for _, path := range []string{"/echo/a", "/echo/a%20b?x=%2f..", "/echo/%41"} {
		out = append(out, probe{
			entry: "B13", name: path, change: scoped, run: ask("GET", path, "good.test", "Authorization", bearer), want: substituted,
			check: func(b *boundary) error {
				if got := first(b).Target; got != path {
					return fmt.Errorf("the target went on as %q", got)
				}
				return nil
			},
		})
	}
	for _, path := range []string{
		"/admin", "/ECHO/a", "/echo/../admin", "/echo/%2e%2e/admin", "/echo/.%2E/admin", "/echo/..%2fadmin", "/echo/%252e%252e/admin",
		"//echo/a", `/echo/..\admin`, "/echo/..%5cadmin", "/echo/..;/admin", "/echo/..;x=1/admin", "/echo/../admin%00/echo/a",
	} {
		out = append(out, probe{
			entry: "B13", name: path, change: scoped, run: ask("GET", path, "good.test", "Authorization", bearer),
			want: forbidden(policy.OutOfScope), check: nothingSent,
		})
	}
	for _, x := range [][2]string{
		{"X-HTTP-Method-Override", "DELETE"},
		{"X-Method-Override", "get, delete"},
		{"X_HTTP_Method", "DELETE"},
		{"X-Original-URL", "/admin"},
		{"X-Rewrite-URL", "/echo/../admin"},
	} {
		out = append(out, probe{
			entry: "B12", name: x[0] + ": " + x[1], change: scoped, run: ask("GET", "/echo/a", "good.test", "Authorization", bearer, x[0], x[1]),
			want: forbidden(policy.OutOfScope), check: nothingSent,
		})
	}
	return append(
		out,
		probe{entry: "B12", name: "_method in the query", change: scoped, run: ask("GET", "/echo/a?%5fmethod=DELETE", "good.test", "Authorization", bearer), want: forbidden(policy.OutOfScope), check: nothingSent},
		probe{entry: "B12", name: "Max-Forwards", run: ask("OPTIONS", "/echo", "good.test", "Authorization", bearer, "Max-Forwards", "0"), want: want{status: []int{200, 403}, value: true}},
	)
}
