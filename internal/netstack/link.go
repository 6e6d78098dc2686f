package netstack

import (
	"context"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/cutoutdev/cutout/internal/netstack/frame"
)

const ethernetLen = header.EthernetMinimumSize

// A link is the boundary's end of the guest's cable. There is one peer, and
// its address is configured: nothing is ever learnt from the guest, so there
// is no neighbour table to poison.
type link struct {
	frames   frame.Link
	filter   *filter
	counters *counters
	mtu      uint32
	in, out  *limiter              // from the guest, to it
	ether    [ethernetLen - 2]byte // destination and source of every frame out

	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	closeOnce  sync.Once
	done       chan struct{} // closed when the reader has returned
}

func newLink(ctx context.Context, cfg *Config, c *counters) *link {
	l := &link{
		frames:   cfg.Link,
		filter:   newFilter(cfg, c),
		counters: c,
		mtu:      uint32(cfg.MTU),
		in:       newLimiter(ctx, cfg.FromGuest, cfg.MTU, cfg.limited(RateFromGuest)),
		out:      newLimiter(ctx, cfg.ToGuest, cfg.MTU, cfg.limited(RateToGuest)),
		done:     make(chan struct{}),
	}
	copy(l.ether[:6], cfg.GuestMAC)
	copy(l.ether[6:], cfg.GatewayMAC)
	return l
}

// read passes frames on until the link ends.
func (l *link) read() {
	defer close(l.done)
	defer l.Close()
	for {
		b, err := l.frames.Next()
		if err != nil {
			if err == frame.ErrLength {
				l.counters.drop(Malformed)
			}
			return
		}
		l.in.wait(1, len(b))
		l.counters.framesIn.Add(1)
		l.counters.bytesIn.Add(uint64(len(b)))
		l.handle(b)
	}
}

func (l *link) handle(b []byte) {
	pass := l.filter.judge(b)
	switch {
	case pass.reply != nil:
		l.write(pass.reply)
	case pass.proto != 0:
		d := l.dispatcher.Load()
		if d == nil {
			return
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
			Payload: buffer.MakeWithView(buffer.NewViewWithData(b)),
		})
		pkt.LinkHeader().Consume(ethernetLen)
		(*d).DeliverNetworkPacket(pass.proto, pkt)
		pkt.DecRef()
	}
}

// write sends one complete frame.
func (l *link) write(b []byte) {
	l.out.wait(1, len(b))
	l.counters.framesOut.Add(1)
	l.counters.bytesOut.Add(uint64(len(b)))
	if l.frames.WriteFrames(1, func(int) [][]byte { return [][]byte{b} }) != nil {
		l.Close()
	}
}

// WritePackets implements stack.LinkWriter.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	list := pkts.AsSlice()
	if size := 0; l.out != nil {
		for _, p := range list {
			size += p.Size()
		}
		l.out.wait(len(list), size)
	}
	err := l.frames.WriteFrames(len(list), func(i int) [][]byte {
		l.counters.bytesOut.Add(uint64(list[i].Size()))
		return list[i].AsSlices()
	})
	if err != nil {
		// A frame may be half written: the framing is lost.
		l.Close()
		return 0, &tcpip.ErrAborted{}
	}
	l.counters.framesOut.Add(uint64(len(list)))
	return len(list), nil
}

// AddHeader implements stack.NetworkLinkEndpoint.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	eth := pkt.LinkHeader().Push(ethernetLen)
	copy(eth, l.ether[:])
	eth[12], eth[13] = byte(pkt.NetworkProtocolNumber>>8), byte(pkt.NetworkProtocolNumber)
}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(ethernetLen)
	return ok
}

// Attach implements stack.NetworkLinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (l *link) IsAttached() bool { return l.dispatcher.Load() != nil }

// Close implements stack.NetworkLinkEndpoint. It unblocks reader and writers.
func (l *link) Close() { l.closeOnce.Do(func() { l.frames.Close() }) }

// Wait implements stack.NetworkLinkEndpoint.
func (l *link) Wait() { <-l.done }

// Capabilities implements stack.NetworkLinkEndpoint. Without
// CapabilityResolutionRequired the stack asks for no neighbour and believes
// none.
func (l *link) Capabilities() stack.LinkEndpointCapabilities { return 0 }

// MTU implements stack.NetworkLinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu }

// SetMTU implements stack.NetworkLinkEndpoint: the MTU is configured.
func (l *link) SetMTU(uint32) {}

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (l *link) MaxHeaderLength() uint16 { return ethernetLen }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (l *link) LinkAddress() tcpip.LinkAddress { return tcpip.LinkAddress(l.ether[6:]) }

// SetLinkAddress implements stack.NetworkLinkEndpoint: it is configured.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// SetOnCloseAction implements stack.NetworkLinkEndpoint: there is no device.
func (l *link) SetOnCloseAction(func()) {}
