package testnet

import (
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
)

// A Collector is an OpenTelemetry collector that keeps the log records it is
// sent, in OTLP over HTTP, with all that came with them.
type Collector struct {
	// Answer returns the status for the n-th request, from 0; nil: 200. What it
	// does not answer with 200 is not kept.
	Answer func(n int) int

	srv *http.Server
	l   net.Listener

	mu       sync.Mutex
	requests int
	records  []*logs.LogRecord
	said     strings.Builder // heads and bodies, decoded
}

// Start serves at a free port of the loopback; with a certificate over TLS.
func (c *Collector) Start(cert *tls.Certificate) error {
	var err error
	if c.l, err = listen(netip.AddrPort{}); err != nil {
		return err
	}
	l := c.l
	if cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	c.srv = &http.Server{Handler: http.HandlerFunc(c.serve)}
	go c.srv.Serve(l)
	return nil
}

func (c *Collector) serve(w http.ResponseWriter, r *http.Request) {
	status, err := c.take(r)
	if err != nil {
		http.Error(w, err.Error(), status)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.WriteHeader(status)
	body, _ := proto.Marshal(&collector.ExportLogsServiceResponse{})
	w.Write(body)
}

func (c *Collector) take(r *http.Request) (int, error) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		return http.StatusBadRequest, fmt.Errorf("%s %s of %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(r.Body); err != nil {
			return http.StatusBadRequest, err
		}
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return http.StatusBadRequest, err
	}
	var msg collector.ExportLogsServiceRequest
	if err := proto.Unmarshal(data, &msg); err != nil {
		return http.StatusBadRequest, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.requests
	c.requests++
	if c.Answer != nil {
		if status := c.Answer(n); status != http.StatusOK {
			return status, fmt.Errorf("not now")
		}
	}
	r.Header.Write(&c.said)
	for _, of := range msg.ResourceLogs {
		fmt.Fprintln(&c.said, of.Resource)
		for _, scope := range of.ScopeLogs {
			c.records = append(c.records, scope.LogRecords...)
			fmt.Fprintln(&c.said, scope)
		}
	}
	c.said.Write(data)
	return http.StatusOK, nil
}

// Addr is where it is.
func (c *Collector) Addr() netip.AddrPort { return addrPort(c.l.Addr()) }

// Requests returns how many it got, those that it did not take too.
func (c *Collector) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests
}

// Records returns what it took.
func (c *Collector) Records() []*logs.LogRecord {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.records)
}

// Said is all that came with the records it took, heads too.
func (c *Collector) Said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// Close ends it and every connection.
func (c *Collector) Close() { c.srv.Close() }

// Attribute is the text of a record's attribute, "" if it has none.
func Attribute(r *logs.LogRecord, key string) string {
	i := slices.IndexFunc(r.Attributes, func(a *common.KeyValue) bool { return a.Key == key })
	if i < 0 {
		return ""
	}
	if n, ok := r.Attributes[i].Value.Value.(*common.AnyValue_IntValue); ok {
		return fmt.Sprint(n.IntValue)
	}
	return r.Attributes[i].Value.GetStringValue()
}
