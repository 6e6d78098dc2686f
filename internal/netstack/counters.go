package netstack

import "sync/atomic"

// A Cause says why a frame from the guest went no further.
type Cause uint8

// The causes.
const (
	Malformed      Cause = iota // too short, lengths that do not fit, bad headers
	Checksum                    // a checksum that does not fit
	SourceMAC                   // not the guest's MAC
	SourceAddress               // not the guest's address
	Neighbor                    // ARP or ND that claims or asks what is not the guest's to
	Destination                 // an address nobody answers for: multicast, foreign MAC
	Protocol                    // a protocol that does not pass; told by ICMP
	Datagram                    // UDP that nobody takes; told by ICMP
	Echo                        // ping to another than the gateway; told by ICMP
	TooManyTCP                  // MaxTCP; told by RST
	TooManyPending              // half-open connections over the bound
	TooManyQueries              // DNS queries over the bound
	causes
)

var causeNames = [causes]string{
	"malformed", "checksum", "source_mac", "source_address", "neighbor", "destination",
	"protocol", "datagram", "echo", "too_many_tcp", "too_many_pending", "too_many_queries",
}

func (c Cause) String() string {
	if c >= causes {
		return "unknown"
	}
	return causeNames[c]
}

// Counters are what passed and what did not since the Stack was made.
type Counters struct {
	FramesIn, FramesOut uint64 // from and to the guest, dropped ones included
	BytesIn, BytesOut   uint64
	TCPOpen             int // connections, asked for and accepted
	Dropped             map[Cause]uint64
}

type counters struct {
	framesIn, framesOut atomic.Uint64
	bytesIn, bytesOut   atomic.Uint64
	dropped             [causes]atomic.Uint64
}

func (c *counters) drop(cause Cause) { c.dropped[cause].Add(1) }

// Counters returns the present counts.
func (s *Stack) Counters() Counters {
	stats := s.stack.Stats()
	out := Counters{
		FramesIn: s.counters.framesIn.Load(), FramesOut: s.counters.framesOut.Load(),
		BytesIn: s.counters.bytesIn.Load(), BytesOut: s.counters.bytesOut.Load(),
		TCPOpen: s.tcpOpen(),
		Dropped: make(map[Cause]uint64),
	}
	for i := range causes {
		if n := s.counters.dropped[i].Load(); n > 0 {
			out.Dropped[i] = n
		}
	}
	add := func(cause Cause, n uint64) {
		if n > 0 {
			out.Dropped[cause] += n
		}
	}
	add(Malformed, stats.IP.MalformedPacketsReceived.Value()+stats.TCP.InvalidSegmentsReceived.Value()+stats.NICs.MalformedL4RcvdPackets.Value())
	add(Checksum, stats.TCP.ChecksumErrors.Value())
	add(TooManyPending, stats.TCP.ForwardMaxInFlightDrop.Value())
	return out
}
