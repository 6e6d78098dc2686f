package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A body is a request body on its way up, and the trailers that follow it.
// What it needs is given back when net/http has closed it and nobody reads.
type body struct {
	q        *request
	plan     bodyPlan
	out      io.Reader   // what goes up
	trailer  http.Header // of the outgoing request; nil if there can be none
	told     []*secret.Secret
	due      []*secret.Secret // whose values will be in it
	written  []*secret.Secret // on record as substituted
	seal     *secret.Body     // nil: it has no markers
	release  []func()
	kept     bool                    // nothing more is read of the guest
	answered atomic.Bool             // its refusal is on record
	broken   atomic.Bool             // it was left incomplete
	no       atomic.Pointer[refusal] // why, if that is ours to tell
	end      chan struct{}           // closed at its end
	once     sync.Once

	mu      sync.Mutex
	reading bool
	closed  bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0, os.ErrClosed
	}
	b.reading = true
	b.mu.Unlock()

	n, err := b.out.Read(p)
	if err != nil {
		b.ended(err)
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	if b.closed {
		b.free()
	}
	return n, err
}

// ended is called with the error that ended the body. The head has gone up:
// one that is not io.EOF makes net/http leave the message incomplete.
func (b *body) ended(err error) {
	b.once.Do(func() {
		b.broken.Store(err != io.EOF)
		if err == io.EOF {
			b.trailers()
		} else if no := bodyRefusal(err); no != nil {
			no.aborted = true
			b.no.Store(no)
		}
		close(b.end)
	})
}

// Close does not wait for a Read, which may be waiting for the guest. The
// guest's body is left to its server, which knows what to do with what was
// not read.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if !b.reading {
		b.free()
	}
	return nil
}

// free gives back what the body holds. The caller holds mu.
func (b *body) free() {
	for _, f := range b.release {
		f()
	}
	b.release = nil
}

// trailers passes the trailers on. net/http writes them after it has seen the
// end of the body, in the same goroutine. They are never substituted.
func (b *body) trailers() {
	if b.trailer == nil {
		return
	}
	for _, o := range b.q.rules.finder.Trailer(b.q.in.Trailer) {
		b.carried(o.Secret, o.Position.String())
	}
	for name, values := range b.q.in.Trailer {
		b.trailer[name] = values
	}
}

// found is told of a placeholder that stays as it is. An error refuses the
// body.
func (b *body) found(s *secret.Secret) error {
	if d := b.q.decide(s); !d.Substitute {
		if action := b.q.violationOf(s).Body(b.q.host()); action != secret.Passthrough {
			no := b.refuse(s, d.Reason)
			no.terminate = action == secret.BlockAndTerminate
			return no
		}
	}
	b.carried(s, "body")
	return nil
}

// refuse is the refusal of the body because of a placeholder of s.
func (b *body) refuse(s *secret.Secret, reason policy.Reason) *refusal {
	no := refused(reason)
	no.secret, no.surface = s, "body"
	return no
}

// carried records that a placeholder passed as inert text, once for each
// secret.
func (b *body) carried(s *secret.Secret, surface string) {
	if slices.Contains(b.told, s) {
		return
	}
	b.told = append(b.told, s)
	e := b.q.event(audit.Carried)
	e.Secret, e.Surface, e.Reason = s.Name, surface, policy.SurfaceOff
	if d := b.q.decide(s); !d.Substitute {
		e.Reason = d.Reason
	}
	b.q.audit(e)
}

// record puts the substitution of a value on record, once for each secret.
func (b *body) record(s *secret.Secret) error {
	if slices.Contains(b.written, s) {
		return nil
	}
	e := b.q.event(audit.Substituted)
	e.Secret, e.Surface = s.Name, "body"
	if err := b.q.cfg.Audit.Append(e); err != nil {
		return refused(policy.AuditUnavailable)
	}
	b.written = append(b.written, s)
	b.q.touch()
	return nil
}

// incomplete reports whether the body was left so after its head had gone.
func (b *body) incomplete() bool { return b != nil && b.broken.Load() }

// refusal returns why the body was left incomplete, or nil. The caller
// answers with it: it is given once.
func (b *body) refusal() *refusal {
	if b == nil {
		return nil
	}
	no := b.no.Load()
	if no == nil || b.answered.Swap(true) {
		return nil
	}
	return no
}

// settle is called when the response has ended. A server may answer before it
// has read everything; the rest is then not waited for.
func (b *body) settle(w http.ResponseWriter) {
	// As long as net/http's transport waits for the end of a write before
	// it gives the connection up.
	const grace = 50 * time.Millisecond
	over := false
	select {
	case <-b.end:
		over = !b.incomplete()
	case <-time.After(grace):
	}
	if !over && b.q.in.ProtoMajor == 1 && !b.kept {
		// The server could not close a body that someone is reading, and
		// would wait for the rest of one that was refused.
		http.NewResponseController(w).SetReadDeadline(past)
	}
	b.Close()
	if b.seal != nil {
		b.seal.Close()
	}
	if no := b.refusal(); no != nil { // the answer had begun
		e := b.q.event(audit.Aborted)
		e.Reason, e.Surface, e.Detail = no.reason, no.surface, no.detail
		if no.secret != nil {
			e.Secret = no.secret.Name
		}
		b.q.audit(e)
		if no.terminate {
			b.q.cfg.Terminate(no.reason)
		}
	}
}

// bodyRefusal returns the refusal that an error of a body stands for, or nil
// if the guest's connection is at fault.
func bodyRefusal(err error) *refusal {
	if no := new(refusal); errors.As(err, &no) {
		copied := *no
		return &copied
	}
	return codingRefusal(err)
}
