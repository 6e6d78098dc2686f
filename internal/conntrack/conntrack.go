// Package conntrack knows the connections of a sandbox that are live, for
// whoever wants to look. It decides nothing, and holds no more of a
// connection than its ends, the name and rule that it passed by, and how many
// bytes went each way. How many there can be is bounded by whoever adds them.
package conntrack

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/policy"
)

// A State is what becomes of a connection.
type State string

// The states.
const (
	Opening     State = "opening"     // the other side is being dialled
	Open        State = "open"        // nobody has spoken
	Spliced     State = "spliced"     // bytes pass unread
	HTTP        State = "http"        // requests in clear are read
	Intercepted State = "intercepted" // TLS is opened, requests are read
)

// A Flow is a connection, or a session of datagrams or pings, at one moment.
type Flow struct {
	Direction policy.Direction `json:"direction"`
	Protocol  policy.Protocol  `json:"protocol"`
	Src       netip.AddrPort   `json:"src"` // who began it
	Dst       netip.AddrPort   `json:"dst"` // what was dialled, or the published port
	Name      string           `json:"name,omitempty"`
	Rule      string           `json:"rule,omitempty"`
	State     State            `json:"state"`
	In        uint64           `json:"bytes_in"` // to the guest
	Out       uint64           `json:"bytes_out"`
	Begun     time.Time        `json:"begun"`
}

// A Table holds the live connections of one sandbox. A nil Table forgets
// them. Its methods may be called from several goroutines.
type Table struct {
	mu      sync.Mutex
	conns   map[*Conn]struct{}
	begun   map[policy.Protocol]uint64
	in, out uint64 // of those that have ended
}

// A Conn is an entry, which its owner must close.
type Conn struct {
	table   *Table
	mu      sync.Mutex
	flow    Flow // without counts
	in, out atomic.Uint64
}

// Add begins an entry. The time is now where f has none.
func (t *Table) Add(f Flow) *Conn {
	if f.Begun.IsZero() {
		f.Begun = time.Now()
	}
	c := &Conn{table: t, flow: f}
	if t == nil {
		return c
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		t.conns = make(map[*Conn]struct{})
	}
	t.conns[c] = struct{}{}
	if t.begun == nil {
		t.begun = make(map[policy.Protocol]uint64)
	}
	t.begun[f.Protocol]++
	return c
}

// Totals are counts since the table was made, but for Open, which are now.
type Totals struct {
	Open, Begun map[policy.Protocol]uint64
	In, Out     uint64 // bytes
}

// Totals returns the present counts.
func (t *Table) Totals() Totals {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := Totals{Open: make(map[policy.Protocol]uint64), Begun: maps.Clone(t.begun), In: t.in, Out: t.out}
	for c := range t.conns {
		n.Open[c.flow.Protocol]++
		n.In += c.in.Load()
		n.Out += c.out.Load()
	}
	return n
}

// Flows returns the live connections, the oldest first.
func (t *Table) Flows() []Flow {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Flow, 0, len(t.conns))
	for c := range t.conns {
		out = append(out, c.now())
	}
	slices.SortFunc(out, func(a, b Flow) int {
		return cmp.Or(a.Begun.Compare(b.Begun), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst))
	})
	return out
}

func (c *Conn) now() Flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.flow
	f.In, f.Out = c.in.Load(), c.out.Load()
	return f
}

// Becomes changes the state.
func (c *Conn) Becomes(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flow.State = s
}

// Passed says by which name, if it has one, and rule the connection goes.
func (c *Conn) Passed(name, rule string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name != "" {
		c.flow.Name = name
	}
	c.flow.Rule = rule
}

// Count adds bytes to the guest and from it.
func (c *Conn) Count(in, out int) {
	c.in.Add(uint64(in))
	c.out.Add(uint64(out))
}

// Close removes the entry.
func (c *Conn) Close() {
	if c.table == nil {
		return
	}
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	if _, ok := c.table.conns[c]; !ok {
		return
	}
	delete(c.table.conns, c)
	c.table.in += c.in.Load()
	c.table.out += c.out.Load()
}

// Wrap returns guest, the guest's side of the connection, with its bytes
// counted.
func (c *Conn) Wrap(guest net.Conn) net.Conn { return &counted{guest, c} }

type counted struct {
	net.Conn
	entry *Conn
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.entry.Count(0, n)
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.entry.Count(n, 0)
	return n, err
}

// CloseWrite ends the sending side, or both if it cannot be ended alone.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// NetConn is the connection that is counted.
func (c *counted) NetConn() net.Conn { return c.Conn }
