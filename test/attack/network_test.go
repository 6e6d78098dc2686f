package attack

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/policy"
)

// A6, A8, A19, B11: what time, numbers and forged packets do to the gates.
var sectionNetwork = []probe{
	{entry: "A6", name: "the pin expires while a connection is open", run: expires, want: want{status: []int{403}, reason: policy.NotPinned, value: true}, only: "h1"},
	{entry: "A8", name: "10^4 names do not displace a secret's pin", run: crowded, want: substituted},
	{entry: "A19", name: "packets from another address", run: foreign, want: substituted},
	{
		entry: "B11", name: "placeholder in a trailer of HTTP/2", run: trailer2, only: "h2",
		want: want{status: []int{200}, carried: true}, check: carriedOnRecord,
	},
}

// expires uses a connection beyond the life of its pin, which goes on, and
// then opens another.
func expires(b *boundary) outcome {
	var later atomic.Int64
	b.Pins.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	c, err := b.Secure(target{})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	later.Store(int64(25 * time.Hour))
	if o := b.raw(c, getGood+authLine+"\r\n", 1)[0]; o.status != 200 {
		return outcome{err: fmt.Errorf("the open connection: %d %v", o.status, o.err)}
	}
	return connect(target{Addr: goodAddr}, "good.test")(b)
}

func crowded(b *boundary) outcome {
	b.Pins.Add("good.test", goodAddr, time.Hour)
	for i := range 10_000 {
		b.Pins.Add(hostname.Name(fmt.Sprintf("n%d.test", i)), evilAddr, 1<<31*time.Second)
	}
	if n := b.Pins.Len(); n > 4096 {
		return outcome{err: fmt.Errorf("%d pins", n)}
	}
	return connect(target{Addr: goodAddr}, "good.test")(b)
}

// foreign sends SYNs under an address that is not the guest's: they are
// dropped and counted, and the guest's own connections work.
func foreign(b *boundary) outcome {
	src := netip.MustParseAddrPort("10.99.0.77:4000")
	b.Guest.SendFrame(b.Guest.Ethernet(netstacktest.TCP(src, netip.AddrPortFrom(strayAddr, 443), 1, 0, 2)))
	o := connect(target{}, "good.test")(b)
	if b.Dialed(strayAddr) {
		return outcome{err: errors.New("the forged SYN was answered")}
	}
	if n := b.Stack.Counters().Dropped[netstack.SourceAddress]; n != 1 {
		return outcome{err: fmt.Errorf("%d packets counted", n)}
	}
	return o
}

func trailer2(b *boundary) outcome {
	c, err := b.Secure(target{})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	f := b.frames(c)
	f.Head(1, false, ":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test", "trailer", "x-sum")
	f.WriteData(1, false, []byte("hello"))
	f.Head(1, true, "x-sum", P)
	return f.outcome(1)
}
