// Package pin remembers which addresses the sandbox's own resolver gave for
// which names: the second gate.
//
// A pin says "this address was an answer for this name, and not long ago".
// Only the DNS interceptor and the static names of --connect-to make pins;
// answers of a resolver that the guest chose never do. An open connection
// keeps its own permission: a pin is asked about only when one begins.
package pin

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
)

// A pin's life, whatever TTL the answer had. Shorter ones would break clients
// that keep an address for as long as a job runs; longer ones would outlive
// the owner of the address.
const (
	minTTL = 10 * time.Minute
	maxTTL = 24 * time.Hour
)

// maxPins bounds the memory of a sandbox's table to under 1 MiB: a guest may
// look up any number of names. Static pins do not count, the user wrote them.
const maxPins = 4096

// A Table is the set of pins of one sandbox. The zero Table is empty and
// ready. Its methods may be called from several goroutines; its fields must
// not be changed after the first call.
type Table struct {
	// Important reports whether a binding or rule mentions name: pins of
	// other names go first when the table is full. Nil: all are alike. It is
	// called with the table's lock held.
	Important func(name hostname.Name) bool
	// Full is told that a pin which was alive had to go for another; nil:
	// nobody is.
	Full func()
	// Now tells the time; nil: time.Now.
	Now func() time.Time

	mu     sync.Mutex
	pins   map[key]*entry
	byAddr map[netip.Addr][]*entry
	age    [2]list.List // of *entry by last Add, oldest first: unimportant, important
}

type key struct {
	name hostname.Name
	addr netip.Addr
}

type entry struct {
	key
	until time.Time     // zero for static pins
	elem  *list.Element // nil for static pins
	queue int           // index into Table.age
}

// Add pins addr for name for ttl, at least 10 minutes and at most 24 hours.
// An earlier pin of the same pair is prolonged, never shortened.
func (t *Table) Add(name hostname.Name, addr netip.Addr, ttl time.Duration) {
	k, ok := makeKey(name, addr)
	if !ok {
		return
	}
	if t.add(k, ttl) && t.Full != nil {
		t.Full()
	}
}

// add reports whether a living pin had to go for it.
func (t *Table) add(k key, ttl time.Duration) (full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	until := now.Add(min(max(ttl, minTTL), maxTTL))
	if e := t.pins[k]; e != nil {
		if e.elem != nil {
			if until.After(e.until) {
				e.until = until
			}
			t.age[e.queue].MoveToBack(e.elem)
		}
		return false
	}
	if t.age[0].Len()+t.age[1].Len() >= maxPins {
		full = t.makeRoom(now)
	}
	e := &entry{key: k, until: until}
	if t.Important != nil && t.Important(k.name) {
		e.queue = 1
	}
	e.elem = t.age[e.queue].PushBack(e)
	t.insert(e)
	return full
}

// AddStatic pins addr for name for good.
func (t *Table) AddStatic(name hostname.Name, addr netip.Addr) {
	k, ok := makeKey(name, addr)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.pins[k]; e != nil {
		t.remove(e)
	}
	t.insert(&entry{key: k})
}

// Pinned reports whether an alive pin of addr for name exists.
func (t *Table) Pinned(name hostname.Name, addr netip.Addr) bool {
	k, ok := makeKey(name, addr)
	if !ok {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.pins[k]
	return e != nil && e.alive(t.now())
}

// Names returns the names that addr is pinned for, sorted.
func (t *Table) Names(addr netip.Addr) []hostname.Name {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	var names []hostname.Name
	for _, e := range t.byAddr[addr.Unmap().WithZone("")] {
		if e.alive(now) {
			names = append(names, e.name)
		}
	}
	slices.Sort(names)
	return names
}

// Len returns the number of pins, dead ones that nobody has yet displaced
// among them.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pins)
}

// makeKey unmaps addr, so that 192.0.2.1 and ::ffff:192.0.2.1 are the same
// pin, as they are the same connection.
func makeKey(name hostname.Name, addr netip.Addr) (key, bool) {
	return key{name, addr.Unmap().WithZone("")}, name != "" && addr.IsValid()
}

func (e *entry) alive(now time.Time) bool { return e.elem == nil || now.Before(e.until) }

// makeRoom removes the oldest pin of an unimportant name, or, if there is
// none, the oldest; a dead pin of an important name goes before either. It
// reports whether the pin was alive.
func (t *Table) makeRoom(now time.Time) bool {
	for _, queue := range []int{1, 0} {
		if front := t.age[queue].Front(); front != nil && !front.Value.(*entry).alive(now) {
			t.remove(front.Value.(*entry))
			return false
		}
	}
	for queue := range t.age {
		if front := t.age[queue].Front(); front != nil {
			t.remove(front.Value.(*entry))
			return true
		}
	}
	return false
}

func (t *Table) insert(e *entry) {
	if t.pins == nil {
		t.pins = make(map[key]*entry)
		t.byAddr = make(map[netip.Addr][]*entry)
	}
	t.pins[e.key] = e
	t.byAddr[e.addr] = append(t.byAddr[e.addr], e)
}

func (t *Table) remove(e *entry) {
	if e.elem != nil {
		t.age[e.queue].Remove(e.elem)
	}
	delete(t.pins, e.key)
	rest := t.byAddr[e.addr]
	if i := slices.Index(rest, e); i >= 0 {
		rest = slices.Delete(rest, i, i+1)
	}
	if len(rest) == 0 {
		delete(t.byAddr, e.addr)
	} else {
		t.byAddr[e.addr] = rest
	}
}

func (t *Table) now() time.Time {
	if t.Now != nil {
		return t.Now()
	}
	return time.Now()
}
