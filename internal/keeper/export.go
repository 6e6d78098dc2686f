package keeper

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/metrics"
	"github.com/cutoutdev/cutout/internal/otlp"
	"github.com/cutoutdev/cutout/internal/policy"
)

// export begins to send events to a collector, if there is one, while roots
// can still be read. It returns who is told events.
func (s *sandbox) export() (told func(audit.Event), err error) {
	if s.spec.OTLP == nil {
		return s.events.tell, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the host's roots: %w", err)
	}
	s.otlp, err = otlp.New(otlp.Config{
		Spec: *s.spec.OTLP, Roots: roots, Store: s.store, Headers: s.logins[HeadersName],
		Tell: func(why string) {
			s.log.Append(audit.Event{Event: audit.Limited, Reason: policy.LimitReached, Detail: "events for the collector: some are not exported; " + why})
		},
	})
	if err != nil {
		return nil, err
	}
	return func(e audit.Event) {
		s.events.tell(e)
		s.otlp.Note(e)
	}, nil
}

// endExport waits for a collector that answers, and says what it did not get.
func (s *sandbox) endExport() {
	if s.otlp == nil {
		return
	}
	if n := s.otlp.Close(); n.Dropped > 0 {
		s.tell.notice(fmt.Sprintf("%d events did not reach the collector %s; the audit log has them", n.Dropped, s.spec.OTLP.URL))
	}
}

// serveMetrics answers at the socket that was inherited, if there is one.
func (s *sandbox) serveMetrics(ctx context.Context) error {
	if s.spec.Metrics == "" {
		return nil
	}
	f := os.NewFile(metricsFD, "metrics")
	defer f.Close() // FileListener duplicates it
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("open metrics socket: %w", err)
	}
	if _, ok := l.(*net.UnixListener); ok {
		l = peerListener{Listener: l, control: true}
	}
	go s.counters.Serve(ctx, l, s.live)
	return nil
}

// live is what there is to tell now.
func (s *sandbox) live() metrics.Live {
	conns := s.boundary.conns.Totals()
	n := metrics.Live{
		ID: s.spec.ID, Version: s.spec.Version, Started: s.begun,
		Open: byProtocol(conns.Open), Begun: byProtocol(conns.Begun),
		BytesToGuest: conns.In, BytesByGuest: conns.Out,
		PacketsNotIn: s.boundary.netState().Dropped,
		Secrets:      s.secrets.names(), Expires: make(map[string]time.Time),
		AuditLines: s.log.Lines(), AuditFailed: s.log.Failed() != nil,
	}
	if s.boundary.proxy != nil {
		n.Requests, n.Requesting = s.boundary.proxy.Requests()
	}
	if s.boundary.pins != nil {
		n.Pins = s.boundary.pins.Len()
	}
	for _, x := range s.secrets.current.Load().All() {
		if !x.Expires.IsZero() {
			n.Expires[x.Name] = x.Expires
		}
	}
	if s.otlp != nil {
		c := s.otlp.Counts()
		n.Exports, n.Exported, n.ExportDropped = true, c.Exported, c.Dropped
	}
	return n
}

func byProtocol(counts map[policy.Protocol]uint64) map[string]uint64 {
	out := make(map[string]uint64)
	for p, n := range counts {
		out[string(p)] = n
	}
	return out
}
