// Package otlp exports audit events to an OpenTelemetry collector: log records
// in OTLP over HTTP, in protobuf.
//
// It never makes anybody wait. Events that the collector does not take in time
// are dropped, counted and told; the audit log has them. The credential for
// the collector goes out of the locked store and is nowhere else, and nothing
// that a collector answers is repeated.
package otlp

import (
	"context"
	"crypto/x509"
	"errors"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A Spec says where events go.
type Spec struct {
	URL      string            `json:"url"` // whole, with the path of logs
	Headers  bool              `json:"headers,omitempty"`
	Gzip     bool              `json:"gzip,omitempty"`
	Timeout  time.Duration     `json:"timeout,omitempty"`  // of one request; 0 = 10 s
	CA       []byte            `json:"ca,omitempty"`       // PEM, in place of the host's roots
	Resource map[string]string `json:"resource,omitempty"` // attributes of what exports
}

// Config is what an Exporter works with.
type Config struct {
	Spec
	Roots   *x509.CertPool // that verify the collector; nil: the host's
	Store   *secret.Store  // where Headers is
	Headers secret.Value   // NAME=VALUE,…; zero: none
	// Tell is told when events begin to be dropped, and why. It may append to
	// the audit log. It is not called by Note.
	Tell func(why string)
}

const (
	// maxQueue is how many events may wait: some 4 MiB at the most that the
	// guest can make of them, and half a minute of a busy sandbox.
	maxQueue = 2048
	// maxBatch is how many go in one request, as in the SDKs.
	maxBatch = 512
	// gather is how long the first of a batch waits for others.
	gather = time.Second
	// After a failure it is tried again, ever less often, and a batch is
	// dropped that could not be sent for so long.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	giveUp     = time.Minute

	defaultTimeout = 10 * time.Second
	// farewell is how long the end of a sandbox waits for a collector that is
	// not known to be away.
	farewell = time.Second
)

// Counts are what became of events.
type Counts struct {
	Exported, Dropped uint64
}

// An Exporter sends events. Note and Counts may be called from several
// goroutines.
type Exporter struct {
	cfg  Config
	url  *url.URL
	conn *connection // of run

	queue   chan audit.Event
	ending  chan struct{} // closed when no more is noted
	done    chan struct{}
	stop    sync.Once
	cut     context.CancelFunc
	life    context.Context
	away    atomic.Bool // the last request failed
	dropped atomic.Uint64
	sent    atomic.Uint64
}

// New starts an Exporter, whose end is Close.
func New(cfg Config) (*Exporter, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("the collector's URL is none")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if len(cfg.CA) > 0 {
		cfg.Roots = x509.NewCertPool()
		if !cfg.Roots.AppendCertsFromPEM(cfg.CA) {
			return nil, errors.New("the collector's CA bundle holds no certificate")
		}
	}
	x := &Exporter{cfg: cfg, url: u, queue: make(chan audit.Event, maxQueue), ending: make(chan struct{}), done: make(chan struct{})}
	x.life, x.cut = context.WithCancel(context.Background())
	go x.run()
	return x, nil
}

// Note has e exported, or counts it as dropped if too many wait. It returns at
// once.
func (x *Exporter) Note(e audit.Event) {
	select {
	case x.queue <- e:
	default:
		x.dropped.Add(1)
	}
}

// Counts returns what became of the events that were noted; what still waits
// is neither.
func (x *Exporter) Counts() Counts {
	return Counts{Exported: x.sent.Load(), Dropped: x.dropped.Load()}
}

// Close sends what waits to a collector that is not known to be away, for a
// second at the most. What is noted later is lost.
func (x *Exporter) Close() Counts {
	x.stop.Do(func() { close(x.ending) })
	if x.away.Load() {
		x.cut()
	}
	limit := time.AfterFunc(farewell, x.cut)
	<-x.done
	limit.Stop()
	return x.Counts()
}

func (x *Exporter) run() {
	defer close(x.done)
	defer x.cut()
	defer func() {
		if x.conn != nil {
			x.conn.Close()
		}
	}()
	told := uint64(0)
	for {
		batch := x.next()
		if len(batch) == 0 {
			return
		}
		why := x.export(batch)
		if n := x.dropped.Load(); n > told && x.cfg.Tell != nil && x.life.Err() == nil {
			x.cfg.Tell(why)
			told = x.dropped.Load()
		}
	}
}

// next waits for events. It returns none at the end.
func (x *Exporter) next() []audit.Event {
	var batch []audit.Event
	var full <-chan time.Time
	ending := x.ending
	for len(batch) < maxBatch {
		if ending == nil { // only what is there
			select {
			case e := <-x.queue:
				batch = append(batch, e)
				continue
			default:
				return batch
			}
		}
		select {
		case e := <-x.queue:
			if batch = append(batch, e); full == nil {
				full = time.After(gather)
			}
		case <-full:
			return batch
		case <-ending:
			ending = nil
		}
	}
	return batch
}

// export sends a batch, if need be again and again. It returns why events are
// dropped, if they are.
func (x *Exporter) export(batch []audit.Event) (why string) {
	body := x.encode(batch)
	began := time.Now()
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := x.post(x.life, body)
		x.away.Store(err != nil)
		if err == nil {
			x.sent.Add(uint64(len(batch)))
			return "more events come than the collector takes"
		}
		status, answered := errors.AsType[*statusError](err)
		if answered && status.after > 0 {
			wait = min(max(wait, status.after), lastRetry)
		}
		if answered && status.final() || errors.Is(err, secret.ErrFields) || time.Since(began) > giveUp || x.over(wait) {
			x.dropped.Add(uint64(len(batch)))
			return "the collector takes no events: " + err.Error()
		}
	}
}

// over waits. It reports whether there is no time left to try again.
func (x *Exporter) over(wait time.Duration) bool {
	select {
	case <-x.life.Done():
	case <-x.ending:
	case <-time.After(wait):
		return false
	}
	return true
}

// encode makes the request of a batch.
func (x *Exporter) encode(batch []audit.Event) []byte {
	list := make([]*logs.LogRecord, len(batch))
	for i, e := range batch {
		list[i] = record(e)
	}
	var about []*common.KeyValue
	for key, value := range x.cfg.Resource {
		about = append(about, attribute(key, value))
	}
	body, err := proto.Marshal(&collector.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  &resource.Resource{Attributes: about},
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: "cutout.audit"}, LogRecords: list}},
	}}})
	if err != nil {
		panic(err) // of valid UTF-8
	}
	if x.cfg.Gzip {
		return compressed(body)
	}
	return body
}
