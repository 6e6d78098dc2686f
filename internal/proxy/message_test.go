package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// inMessages lets the world's secret into WebSocket messages.
func inMessages(w *world) {
	s := w.secret("API_KEY", placeholder, value, "good.test", 443)
	s.Surfaces = &secret.Surfaces{Header: true, WebSocket: true}
	set := must(secret.NewSet([]*secret.Secret{s}))
	w.cfg.Secrets = func() *secret.Set { return set }
}

// TestMessageSubstituted: a placeholder in a text message becomes the value,
// whatever the frames and the pieces; in no other message does it. D5.
func TestMessageSubstituted(t *testing.T) {
	escaped := strings.ReplaceAll(strings.ReplaceAll(placeholder, "$", `\u0024`), "_", `\u005F`)
	split := func(s string) (frames string) {
		first := byte(0x01)
		for i := range len(s) {
			frames += frame(first, true, s[i:i+1]) + frame(0x89, true, "")
			first = 0
		}
		return frames + frame(0x80, true, "")
	}
	said := frame(0x81, true, "auth "+placeholder) + split("x "+placeholder+placeholder+" y") +
		frame(0x81, true, `{"token":"`+escaped+`","note":"\"`+placeholder+`\n"}`) + frame(0x01, true, placeholder[:7]) + frame(0x80, true, placeholder[7:]) +
		frame(0x82, true, "binary "+placeholder) + frame(0x8a, true, placeholder) + frame(0x81, true, `"`+escaped+`"`) +
		frame(0x81, true, strings.Repeat("x", 16<<10-5)+placeholder) + frame(0x88, true, "\x03\xe8")
	want := []string{
		"1:auth " + value, "1:x " + value + value + " y", `1:{"token":"` + value + `","note":"\"` + value + `\n"}`, "1:" + value,
		"2:binary " + placeholder, "10:" + placeholder, `1:"` + escaped + `"`, "1:" + strings.Repeat("x", 16<<10-5) + value, "8:\x03\xe8",
	}
	for _, size := range []int{1, 2, 11, 500, len(said)} {
		upstream, result := listening()
		w := newWorld(t, "h1", upstream, inMessages)
		c := w.openSocket("")
		for rest := said; rest != ""; rest = rest[min(size, len(rest)):] {
			io.WriteString(c, rest[:min(size, len(rest))])
		}
		all, _ := result()
		var got []string
		for _, s := range all {
			if s != "9:" {
				got = append(got, s)
			}
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("pieces of %d: upstream heard %.1000q", size, got)
		}
		if e := w.expect(audit.Substituted, policy.None); e.Surface != "websocket" || e.Secret != "API_KEY" {
			t.Errorf("event is %+v", e)
		}
		w.expect(audit.Carried, policy.SurfaceOff)
	}
}

// TestMessageLogin is a client that sends its key in its first message, as
// APIs for voice and chat have it, and is told what the server got.
func TestMessageLogin(t *testing.T) {
	w := newWorld(t, "h1", inMessages, handler(func(rw http.ResponseWriter, r *http.Request) {
		c, err := coder.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		kind, text, err := c.Read(r.Context())
		if err != nil || !strings.Contains(string(text), value) {
			t.Errorf("server got %q, %v", text, err)
		}
		c.Write(r.Context(), kind, text)
		c.Close(coder.StatusNormalClosure, "")
	}))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, _, err := coder.Dial(ctx, "wss://good.test/ws", &coder.DialOptions{HTTPClient: w.client()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	m, _ := c.Writer(ctx, coder.MessageText)
	io.WriteString(m, `{"api_key":"$MSB_`)
	io.WriteString(m, `API_KEY"}`)
	m.Close()
	_, got, err := c.Read(ctx)
	if err != nil || string(got) != `{"api_key":"`+placeholder+`"}` {
		t.Errorf("heard %q, %v", got, err)
	}
	w.clean(string(got))
}

// TestMessageGates: where a gate fails the text goes on as it is, and the
// value nowhere.
func TestMessageGates(t *testing.T) {
	for name, tt := range map[string]struct {
		edit   func(*secret.Secret)
		reason policy.Reason
	}{
		"surface off":  {func(s *secret.Secret) { s.Surfaces = nil }, policy.SurfaceOff},
		"other port":   {func(s *secret.Secret) { s.Hosts[0].Port = 444 }, policy.HostNotAllowed},
		"other secret": {func(s *secret.Secret) { s.Hosts[0].Pattern = must(hostname.ParsePattern("other.test")) }, policy.HostNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			upstream, result := listening()
			w := newWorld(t, "h1", upstream, inMessages, func(w *world) {
				s := *w.cfg.Secrets().All()[0]
				s.Hosts = append([]secret.Host(nil), s.Hosts...)
				tt.edit(&s)
				set := must(secret.NewSet([]*secret.Secret{&s}))
				w.cfg.Secrets, w.cfg.Intercept = func() *secret.Set { return set }, All
			})
			c := w.openSocket("")
			io.WriteString(c, frame(0x81, true, "a "+placeholder+" b")+frame(0x81, true, `{"\u0024MSB_API_KEY"}`)+frame(0x88, true, ""))
			got, _ := result()
			if want := `["1:a $MSB_API_KEY b" "1:{\"\\u0024MSB_API_KEY\"}" "8:"]`; fmt.Sprintf("%q", got) != want {
				t.Errorf("upstream heard %q", got)
			}
			w.expect(audit.Carried, tt.reason)
			if n := len(w.found(audit.Substituted)); n > 0 {
				t.Errorf("%d events of a substitution", n)
			}
		})
	}
}

// TestMessageEscaped: in JSON a value is read as what it is.
func TestMessageEscaped(t *testing.T) {
	const odd = "quote\"back\\tab\tvalue"
	upstream, result := listening()
	w := newWorld(t, "h1", upstream, func(w *world) {
		s := w.secret("API_KEY", placeholder, odd, "good.test", 443)
		s.Surfaces = &secret.Surfaces{WebSocket: true}
		set := must(secret.NewSet([]*secret.Secret{s}))
		w.cfg.Secrets = func() *secret.Set { return set }
	})
	c := w.openSocket("")
	io.WriteString(c, frame(0x81, true, `{"auth":"`+placeholder+`"}`)+frame(0x81, true, placeholder)+frame(0x88, true, "\x03\xe8"))
	got, _ := result()
	want := []string{`1:{"auth":"quote\"back\\tab\u0009value"}`, "1:" + odd, "8:\x03\xe8"}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("upstream heard %q", got)
	}
}

// TestMessageRefused: what cannot be written as it must be ends the
// WebSocket, and no part of the message says otherwise.
func TestMessageRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		value, said string
		reason      policy.Reason
	}{
		"no text":    {"binary-\xff\xfe-value", "auth " + placeholder, policy.Unsafe},
		"no JSON":    {"binary-\xff\xfe-value", `{"auth":"` + placeholder + `"}`, policy.Unsafe},
		"too many":   {value, strings.Repeat(placeholder, 17), policy.TooMany},
		"audit ends": {value, "auth " + placeholder, policy.AuditUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			upstream, result := listening()
			w := newWorld(t, "h1", upstream, func(w *world) {
				s := w.secret("API_KEY", placeholder, tt.value, "good.test", 443)
				s.Surfaces = &secret.Surfaces{WebSocket: true}
				set := must(secret.NewSet([]*secret.Secret{s}))
				w.cfg.Secrets = func() *secret.Set { return set }
			})
			c := w.openSocket("")
			if tt.reason == policy.AuditUnavailable {
				w.cfg.Audit.Close()
			}
			io.WriteString(c, frame(0x81, true, tt.said)+frame(0x81, true, "later"))
			got, _ := hearAll(c.r)
			if len(got) != 1 || !strings.HasPrefix(got[0], "8:\x03\xf0cutout: "+string(tt.reason)) {
				t.Errorf("guest heard %q", got)
			}
			up, _ := result()
			if s := fmt.Sprint(up); strings.Contains(s, tt.value) || strings.Contains(s, "later") || !strings.Contains(s, "8:\x03\xf0") {
				t.Errorf("upstream heard %q", up)
			}
			if tt.reason != policy.AuditUnavailable {
				w.expect(audit.Aborted, tt.reason)
			}
		})
	}
}

// TestMessageSnapshot: each message follows the secrets of its own time.
func TestMessageSnapshot(t *testing.T) {
	var mu sync.Mutex
	var sets []*secret.Set
	heard := make(chan string)
	w := newWorld(t, "h1", inMessages, func(w *world) {
		first := w.cfg.Secrets()
		second := w.secret("API_KEY", placeholder, "the-next-value-of-the-key", "good.test", 443)
		second.Surfaces = &secret.Surfaces{WebSocket: true}
		sets = []*secret.Set{first, must(secret.NewSet([]*secret.Secret{second})), must(secret.NewSet(nil))}
		w.cfg.Secrets = func() *secret.Set { mu.Lock(); defer mu.Unlock(); return sets[0] }
	}, rawSocket(func(c net.Conn, r *bufio.Reader, _ http.Header) {
		for {
			f, err := hear(r)
			if err != nil {
				return
			}
			heard <- f.payload
		}
	}))
	c := w.openSocket("")
	for _, want := range []string{value, "the-next-value-of-the-key", placeholder} {
		io.WriteString(c, frame(0x81, true, placeholder))
		if got := <-heard; got != want {
			t.Errorf("upstream heard %q, want %q", got, want)
		}
		mu.Lock()
		sets = sets[min(1, len(sets)-1):]
		mu.Unlock()
	}
}

// BenchmarkSocket carries text messages of 1 KiB both ways through the whole
// path, one with a placeholder.
func BenchmarkSocket(b *testing.B) {
	w := newWorld(b, "h1", inMessages, handler(func(rw http.ResponseWriter, r *http.Request) {
		c, err := coder.Accept(rw, r, nil)
		if err != nil {
			return
		}
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil {
				return
			}
			c.Write(r.Context(), kind, text)
		}
	}))
	for name, text := range map[string]string{"plain": strings.Repeat("x", 1024), "placeholder": placeholder + strings.Repeat("x", 1012)} {
		b.Run(name, func(b *testing.B) {
			c, _, err := coder.Dial(context.Background(), "wss://good.test/ws", &coder.DialOptions{HTTPClient: w.client()})
			if err != nil {
				b.Fatal(err)
			}
			defer c.CloseNow()
			b.ReportAllocs()
			for b.Loop() {
				c.Write(context.Background(), coder.MessageText, []byte(text))
				if _, got, err := c.Read(context.Background()); err != nil || string(got) != text {
					b.Fatalf("heard %.40q, %v", got, err)
				}
			}
		})
	}
}
