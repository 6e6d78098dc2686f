package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/otlp"
	"github.com/cutoutdev/cutout/internal/source/helper"
)

// built is what becomes of flags, in the environment env.
func built(t *testing.T, e Export, env map[string]string) (keeper.Spec, string, error) {
	t.Helper()
	lookup := func(name string) (string, bool) { text, ok := env[name]; return text, ok }
	b := Boundary{Export: e, Rules: Rules{Secrets: []string{"API_KEY@api.example"}}}
	var told []string
	if err := b.TakeEnvironment(lookup, func(text string) { told = append(told, text) }); err != nil {
		return keeper.Spec{}, "", err
	}
	spec, err := b.Build(t.Context(), helper.FromEnv(lookup))
	return spec, strings.Join(told, "\n"), err
}

const key = "value-of-the-key-0001"

// TestExportFlags: metrics are at the loopback unless an address is named, and
// a collector has its logs below its URL.
func TestExportFlags(t *testing.T) {
	env := map[string]string{"API_KEY": key, "HEADERS": "a=b", "OTEL_EXPORTER_OTLP_HEADERS": "c=d", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
	for in, want := range map[string]string{
		"9464": "127.0.0.1:9464", "localhost:1": "127.0.0.1:1", ":1": "127.0.0.1:1", "[::1]:0": "[::1]:0", "0.0.0.0:1": "0.0.0.0:1", "unix:/run/m.sock": "unix:/run/m.sock",
	} {
		if spec, _, err := built(t, Export{Metrics: in}, env); err != nil || spec.Metrics != want || spec.OTLP != nil {
			t.Errorf("%s: %s, %v", in, spec.Metrics, err)
		}
	}
	// Variables count only where they are asked for.
	spec, told, err := built(t, Export{OTLP: "https://otel.example", Headers: "env:HEADERS"}, env)
	if d := cmp.Diff(&otlp.Spec{URL: "https://otel.example/v1/logs", Headers: true}, spec.OTLP); err != nil || d != "" || told != "" {
		t.Errorf("%s, %v, %q", d, err, told)
	}
}

// TestExportEnvironment: the variables of OpenTelemetry's SDKs, those of logs
// first. What holds a credential is left to the source helper.
func TestExportEnvironment(t *testing.T) {
	env := map[string]string{
		"API_KEY": key, "OTEL_EXPORTER_OTLP_ENDPOINT": "https://otel.example/base", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		"OTEL_EXPORTER_OTLP_HEADERS": "a=b", "OTEL_EXPORTER_OTLP_TIMEOUT": "2500", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
		"OTEL_RESOURCE_ATTRIBUTES": "team=a%20b,service.name=x", "OTEL_SERVICE_NAME": "agent",
	}
	spec, told, err := built(t, Export{OTLP: FromEnvironment}, env)
	want := &otlp.Spec{
		URL: "https://otel.example/base/v1/logs", Headers: true, Gzip: true, Timeout: 2500 * time.Millisecond,
		Resource: map[string]string{"team": "a b", "service.name": "agent"},
	}
	if d := cmp.Diff(want, spec.OTLP); err != nil || d != "" || told != "events go to the collector that your variables name" {
		t.Errorf("%s, %v, %q", d, err, told)
	}
	if spec, _, err := built(t, Export{OTLP: FromEnvironment}, map[string]string{"API_KEY": key, "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://[::1]:1/in"}); err != nil || spec.OTLP.URL != "http://[::1]:1/in" {
		t.Errorf("%+v, %v", spec.OTLP, err)
	}
	if spec, told, err := built(t, Export{OTLP: FromEnvironment}, map[string]string{"API_KEY": key}); err != nil || spec.OTLP.URL != defaultCollector+"/v1/logs" || !strings.Contains(told, defaultCollector) {
		t.Errorf("%+v, %v, %q", spec.OTLP, err, told)
	}
	if spec, _, err := built(t, Export{}, env); err != nil || spec.OTLP != nil {
		t.Errorf("events are exported though nobody asked: %+v, %v", spec.OTLP, err)
	}
	for name, text := range map[string]string{
		"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon", "OTEL_EXPORTER_OTLP_COMPRESSION": "br",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "OTEL_RESOURCE_ATTRIBUTES": "team", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere",
		"OTEL_SERVICE_NAME": "of " + key,
	} {
		_, _, err := built(t, Export{OTLP: FromEnvironment}, map[string]string{"API_KEY": key, name: text})
		if err == nil || strings.Contains(err.Error()+Hint(err), key) {
			t.Errorf("%s=%s: %v", name, text, err)
		}
	}
}
