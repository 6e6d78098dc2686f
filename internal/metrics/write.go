package metrics

import (
	"io"
	"maps"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/cutoutdev/cutout/internal/audit"
)

// A Live is what can be told of a boundary at one moment beside its events.
type Live struct {
	ID, Version string
	Started     time.Time

	Requests   uint64 // since the start
	Requesting int64  // now
	// Open are the connections that there are, Begun those that there were,
	// by protocol.
	Open, Begun   map[string]uint64
	BytesToGuest  uint64
	BytesByGuest  uint64
	PacketsNotIn  map[string]uint64 // from the guest that went no further, by cause
	Pins          int
	Secrets       []string
	Expires       map[string]time.Time // of values, by secret
	AuditLines    int
	AuditFailed   bool
	Exports       bool // events go to a collector
	Exported      uint64
	ExportDropped uint64
}

// A page is what is being written.
type page struct {
	w   io.Writer
	err error
}

// Write writes the counters and live in the text format.
func (c *Counters) Write(w io.Writer, live Live) error {
	p := &page{w: w}
	p.gauge("cutout_info", "What is running.", sample{1, []string{"sandbox", live.ID, "version", live.Version}})
	p.gauge("cutout_start_time_seconds", "When the sandbox started.", sample{seconds(live.Started), nil})
	p.counter("cutout_requests_total", "Requests that the boundary read, in clear or in intercepted TLS.", sample{float64(live.Requests), nil})
	p.gauge("cutout_requests_in_progress", "Requests that have not ended.", sample{float64(live.Requesting), nil})

	secrets := make(map[string]uint64)
	for _, name := range live.Secrets {
		secrets[name] = 0
	}
	for _, f := range []struct{ event, name, label, help string }{
		{audit.Substituted, "cutout_substitutions_total", "secret", "Values that were written into requests."},
		{audit.Scrubbed, "cutout_scrubs_total", "secret", "Values that were taken out of answers."},
		{audit.Carried, "cutout_carried_total", "secret", "Placeholders that passed as the text that they are."},
		{audit.Refused, "cutout_refusals_total", "reason", "Requests that were refused."},
		{audit.Denied, "cutout_denials_total", "reason", "Connections, datagrams and names that were not let through."},
		{audit.Aborted, "cutout_aborts_total", "reason", "Messages that were left visibly incomplete."},
		{audit.Limited, "cutout_limits_total", "limit", "Limits that were reached."},
		{audit.Resolved, "cutout_resolved_total", "", "Names that were answered."},
		{audit.Spliced, "cutout_spliced_total", "", "TLS connections that passed unopened."},
		{audit.Admitted, "cutout_admitted_total", "", "Peers that came to published ports."},
	} {
		counts := c.of(f.event)
		switch f.label {
		case "secret":
			for name := range secrets {
				counts[name] += 0 // told from the beginning
			}
		case "":
			counts[""] += 0
		}
		p.counter(f.name, f.help, samples(f.label, counts)...)
	}

	p.gauge("cutout_connections", "Connections, and sessions of datagrams and pings.", samples("protocol", live.Open)...)
	p.counter("cutout_connections_total", "Connections, and sessions of datagrams and pings, since the start.", samples("protocol", live.Begun)...)
	p.counter("cutout_bytes_total", "Bytes of connections, seen from the guest.",
		sample{float64(live.BytesToGuest), []string{"direction", "in"}}, sample{float64(live.BytesByGuest), []string{"direction", "out"}})
	p.counter("cutout_packets_dropped_total", "Packets of the guest that went no further.", samples("cause", live.PacketsNotIn)...)
	p.gauge("cutout_pins", "Addresses that are pinned for names.", sample{float64(live.Pins), nil})

	var expire []sample
	for _, name := range slices.Sorted(maps.Keys(live.Expires)) {
		expire = append(expire, sample{seconds(live.Expires[name]), []string{"secret", name}})
	}
	p.gauge("cutout_secret_expiry_time_seconds", "When values expire, of those that do.", expire...)
	p.counter("cutout_audit_lines_total", "Lines of the audit log.", sample{float64(live.AuditLines), nil})
	failed := 0.0
	if live.AuditFailed {
		failed = 1
	}
	p.gauge("cutout_audit_failed", "1 if the audit log cannot be written, and nothing is substituted any more.", sample{failed, nil})
	if live.Exports {
		p.counter("cutout_otlp_events_total", "Events for the collector.",
			sample{float64(live.Exported), []string{"result", "exported"}}, sample{float64(live.ExportDropped), []string{"result", "dropped"}})
	}
	return p.err
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// A sample is a number and its labels, names and values in turn.
type sample struct {
	value  float64
	labels []string
}

// samples are in the order of their labels.
func samples(label string, counts map[string]uint64) []sample {
	var out []sample
	for _, value := range slices.Sorted(maps.Keys(counts)) {
		s := sample{value: float64(counts[value])}
		if label != "" {
			s.labels = []string{label, value}
		}
		out = append(out, s)
	}
	return out
}

func (p *page) counter(name, help string, list ...sample) {
	p.write(name, help, dto.MetricType_COUNTER, list)
}

func (p *page) gauge(name, help string, list ...sample) {
	p.write(name, help, dto.MetricType_GAUGE, list)
}

func (p *page) write(name, help string, kind dto.MetricType, list []sample) {
	if len(list) == 0 || p.err != nil {
		return
	}
	f := &dto.MetricFamily{Name: &name, Help: &help, Type: &kind}
	for _, s := range list {
		m := &dto.Metric{}
		for i := 0; i < len(s.labels); i += 2 {
			m.Label = append(m.Label, &dto.LabelPair{Name: &s.labels[i], Value: &s.labels[i+1]})
		}
		if kind == dto.MetricType_COUNTER {
			m.Counter = &dto.Counter{Value: &s.value}
		} else {
			m.Gauge = &dto.Gauge{Value: &s.value}
		}
		f.Metric = append(f.Metric, m)
	}
	_, p.err = expfmt.MetricFamilyToText(p.w, f)
}
