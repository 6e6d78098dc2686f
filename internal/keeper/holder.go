package keeper

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/proxy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A holder has the secrets of a sandbox at work.
type holder struct {
	spec    Spec
	store   *secret.Store
	record  func(what, detail string) error
	proxy   *proxy.Proxy // nil = no network
	current atomic.Pointer[secret.Set]

	mu sync.Mutex // held over a change
}

// change makes c, whose values receive reads into the store. When it returns
// no request under way goes by what was changed.
func (h *holder) change(ctx context.Context, c Change, receive func([]*secret.Secret) error) (_ Changed, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, err := planChange(h.current.Load().All(), c)
	if err != nil {
		return Changed{}, err
	}
	for _, s := range p.set {
		for _, b := range h.spec.TLS.Bypass {
			if slices.ContainsFunc(s.Hosts, func(x secret.Host) bool { return b.Overlaps(x.Pattern) }) {
				return Changed{}, &Failure{Text: fmt.Sprintf("a host of %s is in --tls-bypass %s, and would not be intercepted", s.Name, b)}
			}
		}
	}
	if c.DryRun {
		return h.check(p)
	}
	defer func() {
		if err != nil { // all or nothing
			for _, s := range p.set {
				if !slices.ContainsFunc(p.turned, func(old *secret.Secret) bool { return old.Value == s.Value }) {
					h.store.Release(s.Value)
				}
			}
		}
	}()
	if err := receive(p.set); err != nil {
		return Changed{}, err
	}
	if err := shapePlaceholders(h.store, p.secrets); err != nil {
		return Changed{}, err
	}
	next, err := h.publish(p.secrets, "changed:", strings.Join(p.done, "; "))
	if err != nil {
		return Changed{}, err
	}
	drain := c.Drain
	if drain == 0 {
		drain = DefaultDrain
	}
	done := Changed{Done: p.done}
	for _, w := range []struct {
		was  []*secret.Secret
		wait time.Duration
	}{{p.lost, narrowDrain}, {p.turned, drain}} {
		n, err := h.settle(ctx, next, w.was, w.wait)
		done.Aborted += n
		if err != nil {
			return done, err
		}
	}
	h.expire()
	return done, nil
}

// check is a dry run: everything but what only the values can show.
func (h *holder) check(p *changePlan) (Changed, error) {
	for _, s := range p.set {
		s.Value = secret.Value{}
		if s.Placeholder == "" {
			s.Placeholder = "$MSB_" + s.Name // a shaped one, to be
		}
	}
	if _, err := secret.NewSet(p.secrets); err != nil {
		return Changed{}, err
	}
	return Changed{Done: p.done}, nil
}

// publish makes secrets those that hold from the next request on. Nothing has
// changed if it fails.
func (h *holder) publish(secrets []*secret.Secret, what, detail string) (*secret.Set, error) {
	last := h.current.Load()
	next, err := last.Next(secrets)
	if err != nil {
		return nil, err
	}
	if h.proxy != nil {
		if err := h.proxy.Prepare(next); err != nil {
			return nil, err
		}
	}
	if err := h.record(what, detail); err != nil {
		return nil, err
	}
	h.current.Store(next)
	for _, f := range last.Former() { // given up by now
		if !slices.ContainsFunc(next.Searched(), func(s *secret.Secret) bool { return s.Value == f.Value }) {
			h.store.Release(f.Value)
		}
	}
	return next, nil
}

// settle waits for requests with the hosts that was went to.
func (h *holder) settle(ctx context.Context, set *secret.Set, was []*secret.Secret, wait time.Duration) (int, error) {
	if h.proxy == nil || len(was) == 0 {
		return 0, nil
	}
	return h.proxy.Settle(ctx, set, func(n hostname.Name) bool {
		return slices.ContainsFunc(was, func(s *secret.Secret) bool { return s.HasHost(n) })
	}, wait)
}

// expire withdraws values at their end. It is called when there are new ones.
func (h *holder) expire() {
	for _, s := range h.current.Load().All() {
		if !s.Expires.IsZero() && s.State == secret.Live {
			time.AfterFunc(time.Until(s.Expires), func() { h.withdraw(s.Value) })
		}
	}
}

// withdraw ends the use of a value that has expired, if it is still in use.
func (h *holder) withdraw(v secret.Value) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.Clone(h.current.Load().All())
	i := slices.IndexFunc(list, func(s *secret.Secret) bool { return s.Value == v && s.State == secret.Live })
	if i < 0 {
		return
	}
	old, s := list[i], *list[i]
	s.State = secret.Withdrawn
	list[i] = &s
	next, err := h.publish(list, "withdrawn:", s.Name+" has expired")
	if err != nil { // no memory, or no log: then nothing is substituted in any case
		return
	}
	h.settle(context.Background(), next, []*secret.Secret{old}, narrowDrain)
}

// names lists the secrets that were not removed.
func (h *holder) names() []string {
	var out []string
	for _, s := range h.current.Load().All() {
		if s.State != secret.Removed {
			out = append(out, s.Name)
		}
	}
	return out
}
