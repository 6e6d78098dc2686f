package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/otlp"
	"github.com/cutoutdev/cutout/internal/source/helper"
)

// An Export is what flags say about who is told what the boundary does,
// unparsed.
type Export struct {
	Metrics string // [ADDR:]PORT, or unix:PATH
	OTLP    string // URL of a collector, or FromEnvironment
	Headers string // SCHEME:REF of NAME=VALUE,…
	CA      string // file

	// What comes from the environment.
	Whole bool   // OTLP is the URL of its logs
	Taken []Text // and what it was taken from
	Spec  otlp.Spec
}

// FromEnvironment is said in place of a collector's URL to take it, and how it
// is spoken to, from the variables that OpenTelemetry's SDKs read.
const FromEnvironment = "env"

// defaultCollector is where they look for one that no variable names.
const defaultCollector = "http://localhost:4318"

// Environment takes the collector of the caller's variables where a flag says
// so. Nothing is taken otherwise. The user is to be told of what it returns, if
// anything.
func (e *Export) Environment(lookup func(string) (string, bool)) (notice string, err error) {
	if e.OTLP != FromEnvironment {
		return "", nil
	}
	const prefix = "OTEL_EXPORTER_OTLP_"
	get := func(names ...string) string {
		for _, name := range names {
			if text, _ := lookup(name); text != "" {
				e.Taken = append(e.Taken, Text{Where: "your variable " + name, Text: text})
				return text
			}
		}
		return ""
	}
	last := func() string { return e.Taken[len(e.Taken)-1].Where }
	option := func(name string) string { return get(prefix+"LOGS_"+name, prefix+name) }
	if p := option("PROTOCOL"); p != "" && p != "http/protobuf" {
		return "", hinted(last()+" asks for a protocol that is not spoken", "set it to http/protobuf")
	}
	switch whole := get(prefix + "LOGS_ENDPOINT"); {
	case whole != "":
		e.OTLP, e.Whole = whole, true
	default:
		e.OTLP = get(prefix + "ENDPOINT")
	}
	notice = "events go to the collector that your variables name"
	if e.OTLP == "" {
		e.OTLP, notice = defaultCollector, "events go to the collector at "+defaultCollector
	}
	for _, name := range []string{prefix + "LOGS_HEADERS", prefix + "HEADERS"} {
		if text, _ := lookup(name); text != "" && e.Headers == "" {
			e.Headers = "env:" + name // which only the source helper reads
		}
	}
	if e.CA == "" {
		e.CA = option("CERTIFICATE")
	}
	if text := option("TIMEOUT"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil || ms == 0 {
			return "", hinted(last()+" is no number of milliseconds", "set it to 10000, or leave it out")
		}
		e.Spec.Timeout = time.Duration(ms) * time.Millisecond
	}
	switch option("COMPRESSION") {
	case "", "none":
	case "gzip":
		e.Spec.Gzip = true
	default:
		return "", hinted(last()+" names an unknown compression", "set it to gzip or none")
	}
	e.Spec.Resource, err = resource(get("OTEL_RESOURCE_ATTRIBUTES"))
	if name := get("OTEL_SERVICE_NAME"); name != "" && err == nil {
		e.Spec.Resource["service.name"] = name
	}
	return notice, err
}

// resource reads NAME=VALUE,… with percent escapes in the values.
func resource(text string) (map[string]string, error) {
	out := make(map[string]string)
	if text == "" {
		return out, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || name == "" || err != nil {
			return nil, hinted("your variable OTEL_RESOURCE_ATTRIBUTES is no list of attributes", "write NAME=VALUE, with commas between")
		}
		out[name] = value
	}
	return out, nil
}

// request asks for the headers' values, if there are any.
func (e Export) request() ([]helper.Request, error) {
	if e.Headers == "" || e.OTLP == "" {
		return nil, nil
	}
	src, _, ok := readSource(e.Headers)
	if !ok {
		return nil, In("otlp-headers", e.Headers, hinted("--otlp-headers does not say where the headers are", "name a source of NAME=VALUE,…: "+strings.Join(Schemes(), ", ")))
	}
	return []helper.Request{{Name: keeper.HeadersName, Scheme: src.Scheme, Ref: src.Ref}}, nil
}

// apply parses all of it.
func (e Export) apply(spec *keeper.Spec) error {
	if e.Metrics != "" {
		at, err := parseMetrics(e.Metrics)
		if err != nil {
			return In("metrics", e.Metrics, err)
		}
		spec.Metrics = at
	}
	if e.OTLP == "" {
		lacking := func(key, text string) error {
			return In(key, text, hinted("--"+key+" without a collector", "name it with --otlp URL"))
		}
		switch {
		case e.Headers != "":
			return lacking("otlp-headers", e.Headers)
		case e.CA != "":
			return lacking("otlp-ca-cert", e.CA)
		}
		return nil
	}
	s := e.Spec
	var err error
	s.URL, err = otlp.Parse(e.OTLP, e.Whole)
	switch {
	case errors.Is(err, otlp.ErrCredential):
		return In("otlp", e.OTLP, hinted("--otlp holds a credential", "leave it out, and say where it is with --otlp-headers SOURCE, which gives NAME=VALUE"))
	case err != nil:
		return In("otlp", e.OTLP, hinted("--otlp names no collector: "+err.Error(), "write http://HOST:PORT or https://HOST:PORT, or "+FromEnvironment+" for what OTEL_EXPORTER_OTLP_ENDPOINT says"))
	}
	if e.CA != "" {
		if s.CA, err = ReadUpstreamCA(e.CA); err != nil {
			return In("otlp-ca-cert", e.CA, err)
		}
	}
	s.Headers = e.Headers != ""
	spec.OTLP = &s
	return nil
}

const unixPrefix = "unix:"

// parseMetrics returns where metrics are served: an address and a port, of the
// loopback unless another is named, or unix: and an absolute path.
func parseMetrics(text string) (string, error) {
	const usage = "write PORT, ADDR:PORT or unix:PATH"
	if path, ok := strings.CutPrefix(text, unixPrefix); ok {
		if path == "" {
			return "", hinted("--metrics: unix: is not followed by a path", usage)
		}
		path, err := filepath.Abs(path)
		return unixPrefix + path, err
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = "", text
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", hinted("--metrics: it ends with no port", usage)
	}
	addr := loopback
	if host != "" && host != "localhost" {
		if addr, err = netip.ParseAddr(host); err != nil || addr.Zone() != "" {
			return "", hinted("--metrics: it is not an address of this machine", usage)
		}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)).String(), nil
}

// texts lists all that the user wrote.
func (e Export) texts() []Text {
	texts := []Text{{Where: "--metrics", Text: e.Metrics}, {Where: "--otlp", Text: e.OTLP}, {Where: "--otlp-headers", Text: e.Headers}, {Where: "--otlp-ca-cert", Text: e.CA}}
	return slices.DeleteFunc(append(texts, e.Taken...), func(t Text) bool { return t.Text == "" })
}

// A login is a credential that is not the guest's.
type login struct {
	flag, text, form string // as it is asked for, and what it must look like
}

// check refuses a credential that is not there or cannot be one.
func (l login) check(q helper.Request, r helper.Result) error {
	var err error
	switch {
	case r.Failed != "" && q.Scheme == "env":
		err = hinted(l.flag+": the environment variable "+shown(q.Ref)+" is not set", "export it with "+l.form)
	case r.Failed != "":
		err = hinted(fmt.Sprintf("%s: read it from %s: %s", l.flag, q.Scheme, r.Failed), r.Hint)
	case r.Len == 0 || r.LineBreak || r.Len > maxLogin:
		err = hinted(l.flag+": what "+q.Scheme+" gives is no credential", "it must be "+l.form+", in one line")
	}
	return In(strings.TrimPrefix(l.flag, "--"), l.text, err)
}

// logins asks for the credentials that are not the guest's.
func (b Boundary) logins() (requests []helper.Request, check func(helper.Request, helper.Result) error, err error) {
	proxy, badProxy := b.Egress.request()
	headers, badHeaders := b.Export.request()
	check = func(q helper.Request, r helper.Result) error {
		if q.Name == keeper.HeadersName {
			return login{q.Name, b.Export.Headers, "NAME=VALUE, with commas between"}.check(q, r)
		}
		return login{q.Name, b.Egress.Auth, "USER:PASSWORD"}.check(q, r)
	}
	return append(proxy, headers...), check, errors.Join(badProxy, badHeaders)
}
