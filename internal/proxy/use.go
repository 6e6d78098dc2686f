package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A use is a request, or a message of a WebSocket, under way. It goes by the
// secrets of the moment in which it began: until it ends it may write values
// of that moment, and its answer is searched for no others.
type use struct {
	proxy *Proxy
	rules *rules
	host  hostname.Name // "" = nobody knows
	done  chan struct{} // closed when it has ended

	mu    sync.Mutex
	abort func() // makes it end soon; nil once it has ended
}

// begin starts a use with the current rules.
func (p *Proxy) begin(host hostname.Name, abort func()) *use {
	p.usesMu.Lock() // Settle sees it, or it sees the new set
	defer p.usesMu.Unlock()
	u := &use{proxy: p, rules: p.currentRules(), host: host, abort: abort, done: make(chan struct{})}
	p.uses[u] = true
	return u
}

// end may be called again.
func (u *use) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.abort == nil {
		return
	}
	u.abort = nil
	u.proxy.usesMu.Lock()
	delete(u.proxy.uses, u)
	u.proxy.usesMu.Unlock()
	close(u.done)
}

// abandon aborts u and reports whether it had not ended.
func (u *use) abandon() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.abort == nil {
		return false
	}
	u.abort()
	return true
}

// abortLimit is how long what was aborted may take to end.
const abortLimit = 10 * time.Second

var errStuck = errors.New("requests that were aborted do not end")

// Settle returns when nothing goes by other secrets than those of set, which
// is the current one, with a host that concerns says is concerned. What has
// not ended by itself after wait, or when ctx ends, is aborted and counted.
func (p *Proxy) Settle(ctx context.Context, set *secret.Set, concerns func(hostname.Name) bool, wait time.Duration) (aborted int, err error) {
	p.usesMu.Lock()
	var old []*use
	for u := range p.uses {
		if u.rules.set != set && (u.host == "" || concerns(u.host)) {
			old = append(old, u)
		}
	}
	p.usesMu.Unlock()
	if !await(ctx, old, wait) {
		for _, u := range old {
			if u.abandon() {
				aborted++
			}
		}
		if !await(context.WithoutCancel(ctx), old, abortLimit) {
			return aborted, errStuck
		}
	}
	return aborted, nil
}

// await reports whether all have ended within limit.
func await(ctx context.Context, uses []*use, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, u := range uses {
		select {
		case <-u.done:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
