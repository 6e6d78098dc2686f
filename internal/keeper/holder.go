package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/proxy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A holder has the secrets of a sandbox at work.
type holder struct {
	spec    Spec
	store   *secret.Store
	record  func(what, detail string) error
	notice  func(string) // tells the user; may be nil
	proxy   *proxy.Proxy // nil = no network
	current atomic.Pointer[secret.Set]
	life    context.Context // of the sandbox

	mu         sync.Mutex            // held over a change
	refreshers map[string]*refresher // by the secrets whose values they get
}

// change makes c, whose values receive reads into the store from a socket, which
// it returns if it stays open. When change returns no request under way goes by
// what was changed.
func (h *holder) change(ctx context.Context, c Change, receive func([]*secret.Secret) (int, error)) (_ Changed, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, err := planChange(h.current.Load().All(), c, h.spec.OnViolation)
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
	helper := -1
	defer func() {
		if helper >= 0 {
			unix.Close(helper)
		}
	}()
	if len(p.set) > 0 {
		if helper, err = receive(p.set); err != nil {
			return Changed{}, err
		}
	}
	if err := shapePlaceholders(h.store, p.secrets); err != nil {
		return Changed{}, err
	}
	next, err := h.publish(p.secrets, "changed:", strings.Join(p.done, "; "))
	if err != nil {
		return Changed{}, err
	}
	for _, name := range append(slices.Clone(c.Remove), names(p.set)...) {
		h.unfollow(name)
	}
	if helper >= 0 {
		h.follow(helper, p.set)
		helper = -1
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
		return nil, noRoom(err)
	}
	if h.proxy != nil {
		for err = h.proxy.Prepare(next); errors.Is(err, secret.ErrFull) && next.Forget(); {
			err = h.proxy.Prepare(next)
		}
		if err != nil {
			return nil, noRoom(err)
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
	for _, s := range next.All() {
		if !slices.Contains(last.All(), s) {
			h.watch(s)
		}
	}
	return next, nil
}

// noRoom says what can be done about err if a former value has no room.
func noRoom(err error) error {
	if errors.Is(err, secret.ErrFormer) || errors.Is(err, secret.ErrFull) {
		return &Failure{Text: err.Error(), Hint: "start the sandbox again; nothing was changed"}
	}
	return err
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

// watch withdraws the value of s at its end, unless s has changed by then. It
// looks at the time of day: timers stand still while the host sleeps.
func (h *holder) watch(s *secret.Secret) {
	if s.Expires.IsZero() || s.State != secret.Live {
		return
	}
	left := time.Until(s.Expires)
	time.AfterFunc(min(left, clockCheck), func() {
		switch {
		case !slices.Contains(h.current.Load().All(), s):
		case time.Now().Before(s.Expires):
			h.watch(s)
		default:
			h.withdraw(s)
		}
	})
}

// withdraw ends the use of a value that has expired, if it is still in use.
func (h *holder) withdraw(old *secret.Secret) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.Clone(h.current.Load().All())
	i := slices.Index(list, old)
	if i < 0 {
		return
	}
	s := *old
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
	return names(slices.DeleteFunc(slices.Clone(h.current.Load().All()), func(s *secret.Secret) bool { return s.State == secret.Removed }))
}

func names(list []*secret.Secret) []string {
	var out []string
	for _, s := range list {
		out = append(out, s.Name)
	}
	return out
}

// begin makes set the first that holds. Values that expire are refreshed by the
// helper at the other end of fd, which is the holder's from here on.
func (h *holder) begin(ctx context.Context, set *secret.Set, fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.life = ctx
	for _, s := range set.All() {
		h.watch(s)
	}
	if fd >= 0 {
		h.follow(fd, set.All())
	}
}
