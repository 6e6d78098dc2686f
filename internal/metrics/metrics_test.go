package metrics

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
)

// parsed is what Prometheus reads.
func parsed(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	all, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return all
}

func written(t *testing.T, c *Counters, live Live) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Write(&b, live); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var now = Live{
	ID: "3f2a", Version: "1.0", Started: time.Unix(1700000000, 0), Requests: 7, Requesting: 2,
	Open: map[string]uint64{"tcp": 1}, Begun: map[string]uint64{"tcp": 5, "udp": 2}, BytesToGuest: 10, BytesByGuest: 20,
	PacketsNotIn: map[string]uint64{"checksum": 4}, Pins: 3, Secrets: []string{"API_KEY", "UNUSED"},
	Expires: map[string]time.Time{"API_KEY": time.Unix(1700000060, 0)}, AuditLines: 9, Exports: true, Exported: 5, ExportDropped: 6,
}

// TestText: Prometheus reads what is written, each event once.
func TestText(t *testing.T) {
	var c Counters
	for _, e := range []audit.Event{
		{Event: audit.Substituted, Secret: "API_KEY"},
		{Event: audit.Substituted, Secret: "API_KEY"},
		{Event: audit.Scrubbed, Secret: "API_KEY"},
		{Event: audit.Refused, Reason: policy.NotPinned, Host: "guest.example", Path: "/chosen"},
		{Event: audit.Refused, Reason: policy.NotPinned, Count: 40},
		{Event: audit.Denied, Reason: policy.RuleDenied, Dst: "192.0.2.1:1"},
		{Event: audit.Aborted, Reason: policy.MalformedRequest},
		{Event: audit.Limited, Reason: policy.LimitReached, Detail: "TCP connections: the next is refused"},
		{Event: audit.Resolved, Host: "guest.example"},
	} {
		c.Observe(e)
	}
	text := written(t, &c, now)
	all := parsed(t, text)
	for series, want := range map[string]float64{
		"cutout_substitutions_total{secret=API_KEY}":    2,
		"cutout_substitutions_total{secret=UNUSED}":     0,
		"cutout_scrubs_total{secret=API_KEY}":           1,
		"cutout_refusals_total{reason=not_pinned}":      41,
		"cutout_denials_total{reason=rule_denied}":      1,
		"cutout_aborts_total{reason=malformed_request}": 1,
		"cutout_limits_total{limit=TCP connections}":    1,
		"cutout_resolved_total":                         1,
		"cutout_spliced_total":                          0,
		"cutout_requests_total":                         7,
		"cutout_requests_in_progress":                   2,
		"cutout_connections{protocol=tcp}":              1,
		"cutout_connections_total{protocol=udp}":        2,
		"cutout_bytes_total{direction=in}":              10,
		"cutout_bytes_total{direction=out}":             20,
		"cutout_packets_dropped_total{cause=checksum}":  4,
		"cutout_pins": 3,
		"cutout_secret_expiry_time_seconds{secret=API_KEY}": 1700000060,
		"cutout_start_time_seconds":                         1700000000,
		"cutout_info{sandbox=3f2a,version=1.0}":             1,
		"cutout_audit_lines_total":                          9,
		"cutout_audit_failed":                               0,
		"cutout_otlp_events_total{result=dropped}":          6,
	} {
		if got, ok := valueOf(all, series); !ok || got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	for _, chosen := range []string{"guest.example", "/chosen", "192.0.2.1"} {
		if strings.Contains(text, chosen) {
			t.Errorf("it tells what the guest chose: %s", chosen)
		}
	}
}

// valueOf is the value of one series, NAME{LABEL=VALUE,…}.
func valueOf(all map[string]*dto.MetricFamily, series string) (float64, bool) {
	name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	for _, m := range all[name].GetMetric() {
		var has []string
		for _, l := range m.Label {
			has = append(has, l.GetName()+"="+l.GetValue())
		}
		if strings.Join(has, ",") == labels {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true
		}
	}
	return 0, false
}

// TestBounded: no guest makes the page grow.
func TestBounded(t *testing.T) {
	var c Counters
	const events = 10_000
	for i := range events {
		text := fmt.Sprintf("chosen-%d", i)
		c.Observe(audit.Event{Event: audit.Refused, Reason: policy.Reason(text), Host: text, Path: text})
		c.Observe(audit.Event{Event: audit.Limited, Detail: text + ": x"})
		c.Observe(audit.Event{Event: audit.Substituted, Secret: text})
		c.Observe(audit.Event{Event: text})
	}
	all := parsed(t, written(t, &c, now))
	total := 0.0
	for name, f := range all {
		if n := len(f.Metric); n > maxLabels+3 {
			t.Errorf("%s has %d series", name, n)
		}
	}
	for _, m := range all["cutout_limits_total"].Metric {
		total += m.Counter.GetValue()
	}
	if got, _ := valueOf(all, "cutout_refusals_total{reason=other}"); got != events || total != events {
		t.Errorf("%v refusals, %v limits", got, total)
	}
}

// TestServe: it answers GET /metrics to whoever asks by address, nothing else
// and nobody else.
func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var c Counters
	go func() { defer close(ended); c.Serve(ctx, l, func() Live { return now }) }()
	for _, tt := range []struct {
		method, path, host string
		status             int
	}{
		{"GET", "/metrics", "", 200},
		{"GET", "/metrics", "localhost:9464", 200},
		{"GET", "/metrics", "[::1]", 200},
		{"GET", "/metrics", "rebound.example:9464", 421},
		{"POST", "/metrics", "", 405},
		{"GET", "/", "", 404},
		{"GET", "/debug/pprof/", "", 404},
	} {
		r, _ := http.NewRequest(tt.method, "http://"+l.Addr().String()+tt.path, nil)
		r.Host = tt.host
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		body.ReadFrom(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s of %s: %s", tt.method, tt.path, tt.host, resp.Status)
		}
		if resp.StatusCode == 200 && len(parsed(t, body.String())) < 10 {
			t.Errorf("it says %s", &body)
		}
	}
	cancel()
	<-ended
}
