package attack

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// D2, D3, D4, D6: where a placeholder may stand, how it may be written and
// what it may be.
var sectionPlace = join(places(), writings(), shapes(), []probe{
	{entry: "D3", name: "scheme", only: "h2", want: want{status: []int{0, 400}}, check: nothingSent, run: headers(":method", "GET", ":scheme", P, ":path", "/echo", ":authority", "good.test", "authorization", bearer)},
	{entry: "D3", name: "fragment", want: malformed, check: nothingSent, run: ask("GET", "/echo#"+P, "good.test")},
	{entry: "D3", name: "fragment of an absolute target", only: "h1", want: malformed, check: nothingSent, run: ask("GET", "https://good.test/echo#"+P, "good.test")},
	{entry: "D3", name: "userinfo", only: "h1", want: misdirected, check: nothingSent, run: ask("GET", "https://"+P+"@good.test/echo", "good.test")},
})

// places are D2: in each the value is written as the place demands.
func places() []probe {
	const marks = `a"b\c<d>&e f%g+h/0123456789`
	const form = "multipart/form-data; boundary=x"
	parts := func(v string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n" + v + "\r\n--x\r\nContent-Disposition: form-data; name=\"j\"\r\nContent-Type: application/json\r\n\r\n{\"k\":1}\r\n--x--\r\n"
	}
	var out []probe
	for _, x := range []struct{ name, kind, body, want string }{
		{"JSON key", "application/json", `{"` + P + `":1}`, `{"a\"b\\c<d>&e f%g+h/0123456789":1}`},
		{"JSON, in an array in an object", "application/json", `{"k":[{"v":"x` + P + `y"}]}`, `{"k":[{"v":"xa\"b\\c<d>&e f%g+h/0123456789y"}]}`},
		{"multipart part", form, parts(P), parts(marks)},
		{"form name", "application/x-www-form-urlencoded", P + "=1", "a%22b%5Cc%3Cd%3E%26e%20f%25g%2Bh%2F0123456789=1"},
		{"XML text beside markup", "text/xml", "<a><!-- x -->" + P + "<b/></a>", "<a><!-- x -->a&#34;b\\c&lt;d&gt;&amp;e f%g+h/0123456789<b/></a>"},
		{"plain text", "text/plain", "x" + P + "y", "x" + marks + "y"},
	} {
		out = append(out, probe{
			entry: "D2", name: x.name, want: want{status: []int{200}}, run: post(x.body, "Content-Type", x.kind), check: exactLength(x.want),
			change: func(b *boundary) { b.Secret.Value = b.Value(marks); inBodies(b) },
		})
	}
	return append(out, probe{
		entry: "D2", name: "query name, its surface on", run: ask("GET", "/echo?"+P+"=1", "good.test"), change: surfaces(secret.Surfaces{Query: true}), want: substituted,
		check: func(b *boundary) error {
			if got := first(b).Target; got != "/echo?"+V+"=1" {
				return fmt.Errorf("target is %q", got)
			}
			return nil
		},
	})
}

// writings are D4: to good.test a spelling that its place has is understood,
// and any other goes on as the useless text that it is; to evil.test a known
// one is refused. No spelling is changed by half.
func writings() []probe {
	utf16le := func(s string) string {
		var out strings.Builder
		for _, u := range utf16.Encode([]rune(s)) {
			out.WriteString(string([]byte{byte(u), byte(u >> 8)}))
		}
		return out.String()
	}
	escaped := strings.NewReplacer("$", "%24", "_", "%5f").Replace(P)
	var out []probe
	for _, x := range []struct {
		name, kind, body, want string
	}{
		{"JSON escapes in JSON", "application/json", `{"k":"\u0024MSB\u005fAPI_KEY"}`, `{"k":"` + V + `"}`},
		{"percent in a form", "application/x-www-form-urlencoded", "k=" + escaped, "k=" + V},
		{"JSON escapes in text", "text/plain", `\u0024MSB_API_KEY`, ""},
		{"percent in JSON", "application/json", `{"k":"` + escaped + `"}`, ""},
		{"HTML entities in HTML", "text/html", "<p>&#36;MSB_API_KEY</p>", "<p>" + V + "</p>"},
		{"HTML entities in text", "text/plain", "<p>&#36;MSB_API_KEY</p>", ""},
		{"UTF-16", "text/plain; charset=utf-16le", utf16le(P), ""},
		{"Base64 in text", "text/plain", b64(P), ""},
		{"Base64 in JSON", "application/json", `{"k":"` + b64("user:"+P) + `"}`, ""},
		{"another case", "text/plain", strings.ToLower(P), ""},
		{"all but its end", "text/plain", P[:len(P)-1], ""},
	} {
		want := x.want
		if want == "" {
			want = x.body
		}
		p := probe{
			entry: "D4", name: x.name + ", to good.test", change: inBodies, run: post(x.body, "Content-Type", x.kind), check: exactLength(want),
			want: wantValue(x.want != ""),
		}
		out = append(out, p, probe{
			entry: "D4", name: x.name + ", to evil.test", change: func(b *boundary) { inBodies(b); all(b) },
			want: wantStatus(200), check: inertAt(x.body),
			run: func(b *boundary) outcome {
				c, err := b.Secure(target{Name: "evil.test"})
				if err != nil {
					return outcome{err: err}
				}
				defer c.Close()
				return b.send(c, "POST", "/echo", "evil.test", x.body, "Content-Type", x.kind)
			},
		})
	}
	for name, field := range map[string]string{
		"percent in a header":      "Bearer " + escaped,
		"JSON escapes in a header": `Bearer \u0024MSB_API_KEY`,
		"Base64 in a header":       "Bearer " + b64(P),
		"Base64 twice, in Basic":   "Basic " + b64(b64("user:"+P)),
		"UTF-16, in Basic":         "Basic " + b64(utf16le("user:"+P)),
	} {
		out = append(out, probe{
			entry: "D4", name: name, run: ask("GET", "/echo", "good.test", "Authorization", field), want: wantStatus(200),
			check: func(b *boundary) error {
				if got := first(b).Header.Get("Authorization"); got != field {
					return fmt.Errorf("the upstream got %q", got)
				}
				return nil
			},
		})
	}
	return out
}

func wantStatus(n int) want { return want{status: []int{n}} }

func wantValue(v bool) want { return want{status: []int{200}, value: v} }

// inertAt checks that evil.test got the body as it was written.
func inertAt(body string) func(*boundary) error {
	return func(b *boundary) error {
		for _, r := range b.Evil.Requests() {
			if string(r.Body) == body {
				return nil
			}
		}
		return fmt.Errorf("the upstream got %.300q", b.Received())
	}
}

// shapes are D6: what a placeholder must not be, at load.
func shapes() []probe {
	loads := func(secrets func(b *boundary) []*secret.Secret) func(*boundary) outcome {
		return func(b *boundary) outcome {
			b.InProcess(atLoad)
			if _, err := secret.NewSet(secrets(b)); err != nil {
				return b.got(outcome{text: err.Error(), err: err})
			}
			return outcome{status: 200}
		}
	}
	one := func(placeholder, value string) func(*boundary) outcome {
		return loads(func(b *boundary) []*secret.Secret {
			return []*secret.Secret{b.NewSecret("ONE", placeholder, value, "good.test")}
		})
	}
	two := func(p1, v1, p2, v2 string) func(*boundary) outcome {
		return loads(func(b *boundary) []*secret.Secret {
			return []*secret.Secret{b.NewSecret("ONE", p1, v1, "good.test"), b.NewSecret("TWO", p2, v2, "good.test")}
		})
	}
	const other = "an0ther-value-of-the-corpus"
	out := []probe{
		{entry: "D6", name: "two that can be told apart", run: two("$MSB_A_LONG", V, "$MSB_B_LONG", other), want: wantStatus(200)},
		{entry: "D6", name: "a value that holds the other's placeholder", run: two("$MSB_A_LONG", "x$MSB_B_LONGx", "$MSB_B_LONG", other), want: unanswered},
		{entry: "D6", name: "a placeholder that is part of its value", run: one(V[3:20], V), want: unanswered},
		{entry: "D6", name: "a placeholder that holds its value", run: one("x"+V+"x", V), want: unanswered},
		{entry: "D6", name: "a placeholder that is its value in Base64", run: one(b64(V), V), want: unanswered},
		{entry: "D6", name: "a placeholder that is its value in another case", run: one(strings.ToUpper(V), V), want: unanswered},
		{entry: "D6", name: "a placeholder with a line break", run: one("$MSB_A\r\nB_LONG", V), want: unanswered},
		{entry: "D6", name: "a placeholder of 1025 bytes", run: one("$"+strings.Repeat("x", 1024), V), want: unanswered},
		{entry: "D6", name: "a value of four bytes", run: one("$MSB_A_LONG", "abcd"), want: unanswered},
		{entry: "D6", name: "one pass, never over what was written", change: func(b *boundary) {
			b.Secrets = append(b.Secrets, b.NewSecret("OTHER_KEY", "$MSB_OTHER_KEY", other, "good.test"))
		}, run: ask("GET", "/echo", "good.test", "Authorization", bearer, "X-Api-Key", "$MSB_OTHER_KEY"), want: substituted, check: func(b *boundary) error {
			if got := first(b).Header; got.Get("X-Api-Key") != other || got.Get("Authorization") != "Bearer "+V {
				return errors.New("the upstream got other credentials")
			}
			return nil
		}},
	}
	for i := range out {
		out[i].only = "h1"
	}
	return append(out, probe{entry: "D6", name: "a JWT's shape shows the listed claims alone", only: "h1", run: webToken, want: wantStatus(200)})
}

// webToken draws the shape of a token in whose claims another token, a key and
// a name stand.
func webToken(b *boundary) outcome {
	b.InProcess(atLoad)
	enc := base64.RawURLEncoding.EncodeToString
	nested := enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(`{"sub":"n3sted-subject"}`)) + "." + enc([]byte("n3sted-signature"))
	claims := `{"iss":"https://issuer.test","exp":4102444800,"sub":"s3cret-subject","email":"who@secret.test","act":{"token":"` + nested + `"},"key":"k3y-in-a-claim"}`
	token := enc([]byte(`{"alg":"HS256","typ":"JWT","x5c":"c3rtificate"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte("the signature of it, 32 bytes..."))
	shape, err := b.Store.Shape(must(testnet.Value(b.Store, token)))
	if err != nil {
		return outcome{err: err}
	}
	parts := strings.Split(shape, ".")
	if len(shape) != len(token) || len(parts) != 3 {
		return outcome{err: fmt.Errorf("the shape is %q", shape)}
	}
	text := shape
	for _, p := range parts[:2] {
		plain, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil || !json.Valid(plain) {
			return outcome{err: fmt.Errorf("the shape holds %q: %v", plain, err)}
		}
		text += "\n" + string(plain)
	}
	for _, told := range []string{nested, "n3sted", "s3cret-subject", "who@", "k3y-in", "c3rtificate", strings.Split(token, ".")[2]} {
		if strings.Contains(text, told) {
			return outcome{err: fmt.Errorf("the shape shows %q: %s", told, text)}
		}
	}
	if !strings.Contains(text, "https://issuer.test") {
		return outcome{err: fmt.Errorf("the shape does not show the issuer: %s", text)}
	}
	return outcome{status: 200}
}
