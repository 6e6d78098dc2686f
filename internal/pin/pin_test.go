package pin

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/hostname"
)

var (
	one = netip.MustParseAddr("192.0.2.1")
	two = netip.MustParseAddr("2001:db8::2")
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func newTable() (*Table, *clock) {
	c := &clock{time.Unix(1e9, 0)}
	return &Table{Now: c.now}, c
}

func TestTTL(t *testing.T) {
	tests := map[string]struct{ ttl, life time.Duration }{
		"negative":          {-time.Second, 10 * time.Minute},
		"zero":              {0, 10 * time.Minute},
		"short":             {30 * time.Second, 10 * time.Minute},
		"as given":          {time.Hour, time.Hour},
		"2^31-1 seconds":    {(1<<31 - 1) * time.Second, 24 * time.Hour},
		"the longest there": {1<<63 - 1, 24 * time.Hour},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			table, c := newTable()
			table.Add("good.test", one, test.ttl)
			c.advance(test.life - 1)
			if !table.Pinned("good.test", one) {
				t.Error("dead too early")
			}
			c.advance(1)
			if table.Pinned("good.test", one) || len(table.Names(one)) != 0 { // A6
				t.Error("alive too long")
			}
		})
	}
}

func TestPinned(t *testing.T) {
	table, _ := newTable()
	table.Add("good.test", one, time.Hour)
	table.Add("sub.good.test", two, time.Hour)
	tests := []struct {
		name hostname.Name
		addr netip.Addr
		want bool
	}{
		{"good.test", one, true},
		{"good.test", netip.MustParseAddr("::ffff:192.0.2.1"), true},
		{"good.test", two, false},
		{"evil.test", one, false}, // A18: same address, other name
		{"sub.good.test", one, false},
		{"sub.good.test", two, true},
		{"", one, false},
		{"good.test", netip.Addr{}, false},
	}
	for _, test := range tests {
		if got := table.Pinned(test.name, test.addr); got != test.want {
			t.Errorf("Pinned(%q, %v) = %v", test.name, test.addr, got)
		}
	}
	table.Add("", one, time.Hour)
	table.Add("x.test", netip.Addr{}, time.Hour)
	if table.Len() != 2 {
		t.Error("a pin of nothing was made")
	}
}

func TestNames(t *testing.T) {
	table, c := newTable()
	table.Add("b.test", one, time.Hour)
	c.advance(30 * time.Minute)
	table.Add("a.test", netip.MustParseAddr("::ffff:192.0.2.1"), time.Hour)
	table.AddStatic("c.test", one)
	if diff := cmp.Diff([]hostname.Name{"a.test", "b.test", "c.test"}, table.Names(one)); diff != "" {
		t.Error(diff)
	}
	c.advance(time.Hour - time.Second)
	if diff := cmp.Diff([]hostname.Name{"a.test", "c.test"}, table.Names(one)); diff != "" {
		t.Error(diff)
	}
}

func TestAddAgain(t *testing.T) {
	table, c := newTable()
	table.Add("good.test", one, time.Hour)
	table.Add("good.test", one, 10*time.Minute) // never shortens
	c.advance(59 * time.Minute)
	if !table.Pinned("good.test", one) {
		t.Error("shortened")
	}
	table.Add("good.test", one, time.Hour)
	c.advance(59 * time.Minute)
	if !table.Pinned("good.test", one) {
		t.Error("not prolonged")
	}
	table.AddStatic("good.test", one)
	c.advance(1000 * time.Hour)
	table.Add("good.test", one, time.Hour)
	c.advance(1000 * time.Hour)
	if !table.Pinned("good.test", one) || table.Len() != 1 {
		t.Error("a static pin died")
	}
}

// A8: a guest that looks up a million names.
func TestCap(t *testing.T) {
	table, c := newTable()
	table.Important = func(n hostname.Name) bool { return n == "good.test" }
	full := 0
	table.Full = func() { full++; table.Len() } // takes the lock
	table.AddStatic("static.test", one)
	table.Add("good.test", one, time.Hour)
	for n := range 20000 {
		c.advance(time.Millisecond)
		table.Add(hostname.Name(fmt.Sprintf("n%d.test", n)), two, 1<<31*time.Second)
		if want := max(0, n+2-maxPins); full != want {
			t.Fatalf("%d pins: full was told %d times", n+2, full)
		}
	}
	if table.Len() != maxPins+1 {
		t.Errorf("%d pins", table.Len())
	}
	if !table.Pinned("good.test", one) || !table.Pinned("static.test", one) {
		t.Error("a live pin of a bound name was displaced")
	}
	if !table.Pinned("n19999.test", two) || table.Pinned("n0.test", two) {
		t.Error("not the oldest went")
	}
	if got := len(table.byAddr[two]); got != maxPins-1 {
		t.Errorf("%d entries by address", got)
	}
	c.advance(2 * time.Hour) // good.test's is dead, and goes
	before := full
	table.Add("late.test", two, time.Hour)
	if full != before || table.Len() != maxPins+1 {
		t.Error("the room of a dead pin is told as none")
	}
}

func TestCapOfImportantNames(t *testing.T) {
	table, c := newTable()
	table.Important = func(hostname.Name) bool { return true }
	for n := range maxPins + 10 {
		c.advance(time.Millisecond)
		table.Add(hostname.Name(fmt.Sprintf("n%d.good.test", n)), one, time.Hour)
	}
	if table.Len() != maxPins || table.Pinned("n9.good.test", one) || !table.Pinned("n10.good.test", one) {
		t.Errorf("%d pins", table.Len())
	}
}

func TestConcurrent(t *testing.T) {
	table := &Table{}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for n := range 500 {
				name := hostname.Name(fmt.Sprintf("n%d.test", n*g%97))
				table.Add(name, one, time.Hour)
				if !table.Pinned(name, one) {
					t.Error("lost")
				}
				table.Names(one)
			}
		})
	}
	wg.Wait()
}

func BenchmarkPinned(b *testing.B) {
	table := &Table{}
	for n := range maxPins {
		table.Add(hostname.Name(fmt.Sprintf("n%d.test", n)), one, time.Hour)
	}
	for b.Loop() {
		table.Pinned("n77.test", one)
	}
}

// BenchmarkAddFull is a flood of names that all give one address.
func BenchmarkAddFull(b *testing.B) {
	table := &Table{}
	names := make([]hostname.Name, 3*maxPins)
	for n := range names {
		names[n] = hostname.Name(fmt.Sprintf("n%d.test", n))
		table.Add(names[n], one, time.Hour)
	}
	n := 0
	for b.Loop() {
		table.Add(names[n%len(names)], one, time.Hour)
		n++
	}
}
