package otlp_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/otlp"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/testnet"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// start makes a collector and an exporter to it, which change may alter.
func start(t *testing.T, c *testnet.Collector, cert *tls.Certificate, change func(*otlp.Config)) *otlp.Exporter {
	t.Helper()
	if err := c.Start(cert); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg := otlp.Config{Spec: otlp.Spec{URL: "http://" + c.Addr().String() + "/v1/logs"}}
	if change != nil {
		change(&cfg)
	}
	x := must(otlp.New(cfg))
	t.Cleanup(func() { x.Close() })
	return x
}

var refused = audit.Event{
	Time: time.Unix(1700000000, 5), Event: audit.Refused, Reason: policy.HostNotAllowed, Secret: "API_KEY", Surface: "header",
	Host: "evil.test", Dst: "93.184.216.66:443", Method: "GET", Path: "/a\xffb", Detail: "why", Count: 3,
}

// TestExport: a collector gets each event, with what it says of it, from whom
// it is told to get it, and the headers that it asks for.
func TestExport(t *testing.T) {
	const token = "Bearer t0ken-of-the-collector"
	for name, gzip := range map[string]bool{"as it is": false, "gzip": true} {
		t.Run(name, func(t *testing.T) {
			var c testnet.Collector
			ca := must(testnet.NewCA())
			cert := must(ca.Cert("localhost"))
			x := start(t, &c, &cert, func(cfg *otlp.Config) {
				cfg.URL = fmt.Sprintf("https://localhost:%d/v1/logs", c.Addr().Port())
				cfg.Roots, cfg.Gzip = ca.Pool(), gzip
				cfg.Resource = map[string]string{"service.name": "cutout", "service.instance.id": "3f2a"}
				cfg.Store = must(secret.NewStore(0))
				t.Cleanup(func() { cfg.Store.Close() })
				cfg.Spec.Headers = true
				cfg.Headers = must(testnet.Value(cfg.Store, "authorization="+strings.ReplaceAll(token, " ", "%20")+",x-team=one"))
			})
			x.Note(refused)
			x.Note(audit.Event{Time: time.Now(), Event: audit.Lifecycle, Detail: audit.Ended})
			if n := x.Close(); n.Exported != 2 || n.Dropped != 0 {
				t.Fatalf("%+v", n)
			}
			all := c.Records()
			if len(all) != 2 {
				t.Fatalf("%d records", len(all))
			}
			r := all[0]
			for key, want := range map[string]string{
				"cutout.event": "refused", "cutout.reason": "host_not_allowed", "cutout.secret": "API_KEY", "cutout.surface": "header",
				"server.address": "evil.test", "destination.address": "93.184.216.66", "destination.port": "443",
				"http.request.method": "GET", "url.path": "/a\uFFFDb", "cutout.detail": "why", "cutout.count": "3", "cutout.rule": "",
			} {
				if got := testnet.Attribute(r, key); got != want {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			if r.TimeUnixNano != 1700000000*1e9+5 || r.EventName != "cutout.refused" || r.SeverityText != "WARN" || all[1].SeverityText != "INFO" {
				t.Errorf("got %v", r)
			}
			for _, want := range []string{"Authorization: " + token, "X-Team: one", `"service.instance.id"`, `"3f2a"`} {
				if !strings.Contains(c.Said(), want) {
					t.Errorf("%q did not arrive: %s", want, c.Said())
				}
			}
		})
	}
}

// TestUnavailable: what a collector does not take now it gets later, over
// another connection if need be; what it never takes is counted and told.
func TestUnavailable(t *testing.T) {
	for name, tt := range map[string]struct {
		answers           []int // to the first requests
		exported, dropped uint64
	}{
		"later":       {[]int{503}, 1, 0},
		"too many":    {[]int{429}, 1, 0},
		"not like so": {[]int{400}, 0, 1},
		"forbidden":   {[]int{401}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told := make(chan string, 1)
			c := testnet.Collector{Answer: func(n int) int {
				if n < len(tt.answers) {
					return tt.answers[n]
				}
				return http.StatusOK
			}}
			x := start(t, &c, nil, func(cfg *otlp.Config) { cfg.Tell = func(why string) { told <- why } })
			x.Note(refused)
			for x.Counts().Exported+x.Counts().Dropped == 0 {
				time.Sleep(time.Millisecond)
			}
			if n := x.Counts(); n.Exported != tt.exported || n.Dropped != tt.dropped {
				t.Errorf("%+v", n)
			}
			if tt.dropped > 0 {
				if why := <-told; why != fmt.Sprintf("the collector takes no events: it answers %d", tt.answers[0]) {
					t.Errorf("told %q", why)
				}
			}
		})
	}
}

// TestReconnects: a collector that has closed its connection meanwhile loses
// nothing.
func TestReconnects(t *testing.T) {
	raw := must(testnet.StartRaw(testnet.RawConfig{Serve: func(c net.Conn) {
		c.Read(make([]byte, 64<<10))
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") // and closes, though it did not say so
	}}))
	defer raw.Close()
	x := must(otlp.New(otlp.Config{Spec: otlp.Spec{URL: "http://" + raw.Addr().String() + "/v1/logs"}}))
	defer x.Close()
	for i := range uint64(3) {
		x.Note(refused)
		for x.Counts().Exported == i {
			time.Sleep(time.Millisecond)
		}
	}
	if n := x.Counts(); n.Dropped != 0 || len(raw.Received()) != 3 {
		t.Errorf("%+v over %d connections", n, len(raw.Received()))
	}
}

// TestUnreachable: nobody waits for a collector that is away, does not answer
// or lies; a flood is held within bounds, and what is lost is counted.
func TestUnreachable(t *testing.T) {
	away := must(net.Listen("tcp", "127.0.0.1:0"))
	away.Close()
	silent := must(net.Listen("tcp", "127.0.0.1:0"))
	defer silent.Close()
	chatter := must(testnet.StartRaw(testnet.RawConfig{Banner: strings.Repeat("no HTTP at all\r\n", 1<<16)}))
	defer chatter.Close()
	ca := must(testnet.NewCA())
	cert := must(ca.Cert("another.test"))
	var stranger testnet.Collector
	if err := stranger.Start(&cert); err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for name, url := range map[string]string{
		"away":     "http://" + away.Addr().String(),
		"silent":   "http://" + silent.Addr().String(),
		"chatter":  "http://" + chatter.Addr().String(),
		"no TLS":   "https://" + chatter.Addr().String(),
		"stranger": "https://" + stranger.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := must(otlp.New(otlp.Config{Spec: otlp.Spec{URL: url + "/v1/logs"}, Roots: ca.Pool()}))
			const flood = 20_000
			for range flood {
				x.Note(refused) // none waits: the test would end at its own limit
			}
			if n := x.Close(); n.Exported != 0 || n.Dropped < flood-2*2048 {
				t.Errorf("%+v", n)
			}
		})
	}
	if n := stranger.Requests(); n != 0 {
		t.Errorf("the stranger got %d requests", n)
	}
}

// TestParse: URLs of collectors, and no error that repeats one.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"http://localhost:4318":              "http://localhost:4318/v1/logs",
		"https://otel.example/":              "https://otel.example/v1/logs",
		"https://otel.example/otlp":          "https://otel.example/otlp/v1/logs",
		"http://[::1]:4318/v1/logs":          "http://[::1]:4318/v1/logs",
		"https://otel.example:443/v1/logs":   "https://otel.example:443/v1/logs",
		"http://192.0.2.1/a%0d%0aHost:%20b/": "http://192.0.2.1/a%0D%0AHost:%20b/v1/logs",
	} {
		if got, err := otlp.Parse(text, false); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "localhost:4318", "grpc://secret.example", "http://", "https://me:secret@otel.example", "https://otel.example/?key=secret",
		"https://otel.example/#secret", "https://otel.example:0", "https://otel.example:", "https://a b/", "http:secret", "https://se_cret!/",
	} {
		if got, err := otlp.Parse(text, false); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
