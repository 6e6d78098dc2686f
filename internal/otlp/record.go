package otlp

import (
	"net/netip"
	"strings"

	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"

	"github.com/cutoutdev/cutout/internal/audit"
)

// warnings are the kinds of event that somebody may have to act upon.
var warnings = map[string]bool{audit.Refused: true, audit.Denied: true, audit.Limited: true, audit.Aborted: true}

// record is e as a log record. Its attributes are those of the semantic
// conventions where there are any; what the guest chose is escaped by the
// encoding.
func record(e audit.Event) *logs.LogRecord {
	at := uint64(e.Time.UnixNano())
	r := &logs.LogRecord{
		TimeUnixNano: at, ObservedTimeUnixNano: at,
		SeverityNumber: logs.SeverityNumber_SEVERITY_NUMBER_INFO, SeverityText: "INFO",
		EventName: "cutout." + e.Event, Body: text(strings.TrimSpace(e.Event + " " + string(e.Reason))),
	}
	if warnings[e.Event] {
		r.SeverityNumber, r.SeverityText = logs.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
	}
	add := func(key, value string) {
		if value != "" {
			r.Attributes = append(r.Attributes, attribute(key, value))
		}
	}
	address := func(kind, value string) {
		if a, err := netip.ParseAddrPort(value); err == nil {
			add(kind+".address", a.Addr().String())
			r.Attributes = append(r.Attributes, number(kind+".port", int64(a.Port())))
		}
	}
	add("cutout.event", e.Event)
	add("cutout.reason", string(e.Reason))
	add("cutout.secret", e.Secret)
	add("cutout.surface", e.Surface)
	add("cutout.rule", e.Rule)
	add("cutout.detail", e.Detail)
	add("server.address", e.Host)
	add("http.request.method", e.Method)
	add("url.path", e.Path)
	address("source", e.Src)
	address("destination", e.Dst)
	if e.Count > 1 {
		r.Attributes = append(r.Attributes, number("cutout.count", int64(e.Count)))
	}
	return r
}

// A protobuf string is UTF-8, and what the guest sends need not be.
func text(s string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.ToValidUTF8(s, "\uFFFD")}}
}

func attribute(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: text(value)}
}

func number(key string, n int64) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: n}}}
}
