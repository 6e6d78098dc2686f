package proxy

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// TestPlainAllowed: the value goes out in clear to the one host for which the
// user allowed it, and to no other host of the secret.
func TestPlainAllowed(t *testing.T) {
	for _, allowed := range []hostname.Name{"good.test", "other.test"} {
		t.Run(string(allowed), func(t *testing.T) {
			w := newWorld(t, "h1", func(w *world) {
				s := w.secret("API_KEY", placeholder, value, "good.test", 443)
				s.Plain = []hostname.Name{allowed}
				set := must(secret.NewSet([]*secret.Secret{s}))
				w.cfg.Secrets = func() *secret.Set { return set }
			})
			u := w.start(testnet.UpstreamConfig{})
			plain := netip.AddrPortFrom(goodAddr.Addr(), 80)
			w.to[plain] = u.Addr()
			c := must(w.connect(context.Background(), plain))
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(c, "GET /echo HTTP/1.1\r\nHost: good.test\r\nAuthorization: Bearer "+placeholder+"\r\nConnection: close\r\n\r\n")
			answer, _ := io.ReadAll(c)
			w.clean(string(answer))
			got := ""
			for _, r := range u.Requests() {
				got += r.Text()
			}
			if allowed == "good.test" && !strings.Contains(got, "Bearer "+value) || allowed != "good.test" && got != "" {
				t.Errorf("the guest got %q, upstream %q", answer, got)
			}
		})
	}
}

// A body is the first on its connection in which a value is written: the
// upstream must be there before.
func TestPlainBody(t *testing.T) {
	for framing, edit := range framings {
		w := newWorld(t, "h1", secrets(func(w *world) []*secret.Secret {
			s := w.secret("API_KEY", placeholder, value, "good.test", 443)
			s.Plain, s.Surfaces = []hostname.Name{"good.test"}, &secret.Surfaces{Body: []secret.BodyPart{{}}}
			return []*secret.Secret{s}
		}))
		w.good = w.start(testnet.UpstreamConfig{})
		w.serve("good.test", netip.AddrPortFrom(goodAddr.Addr(), 80), w.good.Addr())
		body := "key " + placeholder
		if a := w.post(w.client(), "http://good.test/upload", body, edit(body)); a.status != 200 {
			t.Errorf("%s: %d %s %v", framing, a.status, a.body, a.err)
		}
		w.wantBody(1, "key "+value)
	}
}
