//go:build linux

package boundary

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/cutoutdev/cutout/internal/testnet"
)

// TestExport: a confined keeper is asked by Prometheus, over TCP or a socket,
// and sends its events to a collector, by name and over TLS. Neither is told
// the value, though the guest tries, nor the headers that the collector wants
// to anybody but it.
func TestExport(t *testing.T) {
	const headers = "authorization=Bearer%20t0ken-of-the-collector"
	everyone(t, func(t *testing.T, p *place) {
		var c testnet.Collector
		cert, err := p.ca.Cert("localhost")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(&cert); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		url := fmt.Sprintf("https://localhost:%d", c.Addr().Port())
		ca := filepath.Join(p.dir, "ca.pem")
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		free.Close()
		socket, port := filepath.Join(p.dir, "m.sock"), free.Addr().String()
		for name, tt := range map[string]struct {
			at         string
			flags, env []string
			said       string
		}{
			"flags": {port, []string{"--metrics", port, "--otlp", url, "--otlp-headers", "env:HEADERS", "--otlp-ca-cert", ca}, []string{"HEADERS=" + headers}, "metrics are at http://" + port + "/metrics"},
			"variables": {
				socket,
				[]string{"--metrics", "unix:m.sock", "--otlp", "env"},
				[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "OTEL_EXPORTER_OTLP_HEADERS=" + headers, "OTEL_EXPORTER_OTLP_CERTIFICATE=" + ca, "OTEL_EXPORTER_OTLP_COMPRESSION=gzip", "OTEL_RESOURCE_ATTRIBUTES=team=a%20b"},
				"events go to the collector that your variables name",
			},
		} {
			t.Run(name, func(t *testing.T) {
				before := len(c.Records())
				own := p.env
				p.env = append(slices.Clone(own), tt.env...)
				defer func() { p.env = own }()
				run := p.start(append(tt.flags, "--", "sh", "-c", `
					curl -sS -o /dev/null -H "Authorization: Bearer $API_KEY" https://api.example.test/echo
					curl -sS -o /dev/null -H "X-Other: $API_KEY" "https://api.example.test/$API_KEY?q=$API_KEY"
					echo "headers: $(env | grep HEADERS)"; exec sleep 60`)...)
				run.waitLine("headers: ")
				text := scrape(t, tt.at)
				for _, want := range []string{
					`cutout_substitutions_total{secret="API_KEY"} 1`, `cutout_scrubs_total{secret="API_KEY"} 1`, `cutout_refusals_total{reason="surface_off"} 1`,
					`cutout_requests_total 2`, `cutout_connections_total{protocol="tcp"} `, `cutout_bytes_total{direction="in"} `, "cutout_pins ",
				} {
					if !strings.Contains(text, want) {
						t.Errorf("the metrics do not say %s:\n%s", want, text)
					}
				}
				run.cmd.Process.Signal(os.Interrupt)
				run.cmd.Wait()
				said := run.stderr.String()
				if !strings.Contains(said, tt.said) || strings.Contains(said, "did not reach") {
					t.Errorf("it said %s", said)
				}
				var events []string
				for _, r := range c.Records()[before:] {
					events = append(events, testnet.Attribute(r, "cutout.event"))
				}
				for _, kind := range []string{"lifecycle", "substituted", "scrubbed", "refused"} {
					if !slices.Contains(events, kind) {
						t.Errorf("the collector did not get %s, but %v", kind, events)
					}
				}
				if last := c.Records()[len(c.Records())-1]; testnet.Attribute(last, "cutout.detail") != "ended" {
					t.Errorf("the last event is %v", last)
				}
				if !strings.Contains(c.Said(), "Bearer t0ken-of-the-collector") {
					t.Error("the collector did not get its headers")
				}
				for _, form := range []string{p.value, strings.ToUpper(p.value)} {
					if strings.Contains(text, form) || strings.Contains(c.Said(), form) || strings.Contains(said, form) {
						t.Error("the value was told")
					}
				}
				for where, told := range map[string]string{"the metrics": text, "the output": said} {
					if strings.Contains(told, "t0ken") {
						t.Errorf("%s tell the headers", where)
					}
				}
				if _, err := os.Lstat(socket); err == nil {
					t.Error("the socket was left behind")
				}
			})
		}
	})
}

// TestCollectorAway: a collector that cannot be reached costs a line.
func TestCollectorAway(t *testing.T) {
	p := newPlace(t, os.Geteuid())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	out, said, code := p.run("--otlp", "http://"+l.Addr().String(), "--", "sh", "-c", `curl -sS -H "Authorization: Bearer $API_KEY" https://api.example.test/ok`)
	if code != 0 || out != "ok\n" || !strings.Contains(said, "events did not reach the collector http://"+l.Addr().String()+"/v1/logs; the audit log has them") {
		t.Errorf("exit status %d, %q: %s", code, out, said)
	}
}

// scrape asks for the metrics at an address or a socket, until they tell a
// refusal.
func scrape(t *testing.T, at string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		network := "tcp"
		if strings.HasPrefix(at, "/") {
			network = "unix"
		}
		return new(net.Dialer).DialContext(ctx, network, at)
	}}}
	for i := 0; ; i++ {
		resp, err := client.Get("http://127.0.0.1/metrics")
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		parser := expfmt.NewTextParser(model.UTF8Validation)
		if _, err := parser.TextToMetricFamilies(strings.NewReader(string(data))); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		if strings.Contains(string(data), "cutout_refusals_total{") || i == 100 {
			return string(data)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
