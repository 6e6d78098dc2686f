package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source"
)

// A refresher gets newer values from one source helper, before those that it
// gave expire. It is the one place that decides when. What cannot be refreshed
// is used until it expires and then withdrawn ([holder.watch]), and is asked
// for again and again; a helper that has ended is asked for nothing more.
type refresher struct {
	holder *holder
	fd     int // of a socket to the helper; -1 once closed

	mu   sync.Mutex
	next map[string]*turn // of the secrets whose values come from this helper
}

// A turn is when a value is asked for next.
type turn struct {
	due    time.Time
	failed int // times, since there was a value
}

const (
	// maxLead is how long before its end a value is read anew; one that lives
	// for less than five times as long, after four fifths of its life.
	maxLead = 10 * time.Minute
	// After a failure it is tried again, ever less often.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	// clockCheck is how often the time of day is looked at: timers stand still
	// while the host sleeps.
	clockCheck = 30 * time.Second
	// answerLimit is for sources, which have limits of their own.
	answerLimit = 5 * time.Minute
)

// follow has the values of secrets, which came from the helper at the other end
// of fd, refreshed as long as the sandbox lives. The socket is the refresher's.
// The caller holds h.mu.
func (h *holder) follow(fd int, secrets []*secret.Secret) {
	r := &refresher{holder: h, fd: fd, next: make(map[string]*turn)}
	if h.refreshers == nil {
		h.refreshers = make(map[string]*refresher)
	}
	now := time.Now()
	for _, s := range secrets {
		if !s.Expires.IsZero() {
			r.next[s.Name] = &turn{due: dueAt(now, s.Expires)}
			h.refreshers[s.Name] = r
		}
	}
	if len(r.next) == 0 {
		unix.Close(fd) // and the helper ends
		return
	}
	stop := context.AfterFunc(h.life, r.hangUp)
	go func() {
		defer stop()
		r.run()
		r.mu.Lock()
		defer r.mu.Unlock()
		unix.Close(r.fd)
		r.fd = -1
	}()
}

// dueAt says when a value that is good from now to expires is asked for anew.
func dueAt(now, expires time.Time) time.Time {
	return expires.Add(-min(expires.Sub(now)/5, maxLead))
}

// unfollow ends the refreshing of a secret, whose value is another's by now.
// The caller holds h.mu.
func (h *holder) unfollow(name string) {
	r := h.refreshers[name]
	if r == nil {
		return
	}
	delete(h.refreshers, name)
	r.mu.Lock()
	delete(r.next, name)
	left := len(r.next)
	r.mu.Unlock()
	if left == 0 {
		r.hangUp()
	}
}

// hangUp makes every read and wait on the socket return, and the helper end.
func (r *refresher) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	unix.Shutdown(r.fd, unix.SHUT_RDWR)
}

func (r *refresher) run() {
	for {
		name, due := r.soonest()
		if name == "" {
			return
		}
		var err error
		if wait := time.Until(due); wait <= 0 {
			err = r.refresh(name)
		} else if r.spoke(min(wait, clockCheck)) {
			err = errors.New("it has ended")
		}
		if err != nil {
			r.gone()
			return
		}
	}
}

func (r *refresher) soonest() (name string, due time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, t := range r.next {
		if name == "" || t.due.Before(due) {
			name, due = n, t.due
		}
	}
	return name, due
}

// spoke waits. It reports whether the helper hung up, or said something that it
// was not asked for.
func (r *refresher) spoke(wait time.Duration) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}, int(wait.Milliseconds())+1)
	return n > 0 || err != nil && err != unix.EINTR
}

// refresh asks for a value and has it used. An error is the helper's end.
func (r *refresher) refresh(name string) error {
	limit := time.AfterFunc(answerLimit, r.hangUp)
	defer limit.Stop()
	if err := source.WriteMessage(fdWriter(r.fd), source.Wanted{Name: name}, source.MaxHeader); err != nil {
		return err
	}
	var fresh source.Fresh
	if err := receiveJSON(r.fd, source.MaxHeader, &fresh); err != nil {
		return err
	}
	var failed error
	var v secret.Value
	switch {
	case fresh.Failed != "":
		failed = errors.New(fresh.Failed)
	case fresh.Name != name || fresh.Len < 1 || fresh.Len > secret.MaxValue:
		return errors.New("it answers something else")
	default:
		v, failed = r.holder.store.ReadValue(r.fd, fresh.Len)
		if failed != nil && !errors.Is(failed, secret.ErrLineBreak) {
			return failed // what follows may be no message
		}
	}
	limit.Stop()
	if failed == nil {
		failed = r.holder.refreshed(r, name, v, fresh.Expires)
	}
	r.told(name, fresh.Expires, failed)
	return nil
}

// told notes how the turn of a secret went.
func (r *refresher) told(name string, expires time.Time, failed error) {
	r.mu.Lock()
	t := r.next[name]
	if t == nil { // it is not ours any more
		r.mu.Unlock()
		return
	}
	now := time.Now()
	switch {
	case failed != nil:
		t.due = now.Add(min(firstRetry<<min(t.failed, 10), lastRetry))
		t.failed++
	case expires.IsZero(): // for good
		delete(r.next, name)
	default:
		*t = turn{due: dueAt(now, expires)}
	}
	first := t.failed == 1
	r.mu.Unlock()
	if failed != nil {
		r.holder.notRefreshed(name, failed, first)
	}
}

// gone gives the secrets of a helper up that has ended, unless they were given
// up before.
func (r *refresher) gone() {
	r.holder.mu.Lock()
	defer r.holder.mu.Unlock()
	if r.holder.life.Err() != nil {
		return // it was hung up on
	}
	for name, by := range r.holder.refreshers {
		if by == r {
			delete(r.holder.refreshers, name)
			r.holder.notRefreshed(name, errors.New("the source helper has ended"), true)
		}
	}
}

// refreshed has v, which r got, take the place of the value of a secret, for
// which nothing else changes. Requests under way go on with what they have.
func (h *holder) refreshed(r *refresher, name string, v secret.Value, expires time.Time) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.Clone(h.current.Load().All())
	i := slices.IndexFunc(list, func(s *secret.Secret) bool { return s.Name == name })
	defer func() {
		if err != nil || i < 0 || list[i].Value != v {
			h.store.Release(v)
		}
	}()
	if i < 0 || h.refreshers[name] != r {
		return nil // changed meanwhile
	}
	s := *list[i]
	switch {
	case !expires.IsZero() && !expires.After(s.Expires):
		return errors.New("what its source gives expires no later")
	case v.Len() < secret.MinValue && !s.Short:
		return fmt.Errorf("what its source gives is shorter than %d bytes", secret.MinValue)
	case !v.Same(s.Value):
		s.Value = v
	}
	s.Expires, s.State = expires, secret.Live
	list[i] = &s
	_, err = h.publish(list, "refreshed:", name+until(", which is good until ", expires))
	return err
}

// notRefreshed puts on record why there is no newer value, and tells the user
// if that is new.
func (h *holder) notRefreshed(name string, why error, first bool) {
	detail := fmt.Sprintf("%s: %v", name, why)
	for _, s := range h.current.Load().All() {
		if s.Name == name && s.State == secret.Live {
			detail += until("; its value is used until ", s.Expires)
		}
	}
	h.record("not refreshed:", detail)
	if first && h.notice != nil {
		h.notice("not refreshed: " + detail)
	}
}

func until(words string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return words + t.UTC().Format(time.RFC3339)
}

// An fdWriter writes to a descriptor that blocks.
type fdWriter int

func (w fdWriter) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		m, err := unix.Write(int(w), b[n:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		default:
			n += m
		}
	}
	return len(b), nil
}
