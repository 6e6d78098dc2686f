package agent

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"testing"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

// stored is a machine in a snapshot.
type stored struct {
	hosted
	configured bool
}

func (s *stored) fresh() bool { return !s.configured }

func (s *stored) configure(wire.Config) (bool, error) {
	s.configured = true
	return false, nil
}

// A host that finds the agent in a snapshot greets it and numbers its calls
// from 1; the calls of the host before are over. Once the guest is a
// sandbox's, a hello is out of place.
func TestWake(t *testing.T) {
	host, guest := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- newSession(guest, &stored{}, newChildren(false)).run(0) }()
	say := func(call uint32, kind wire.Kind, v any) {
		t.Helper()
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		frame := binary.BigEndian.AppendUint32(nil, call)
		frame = binary.BigEndian.AppendUint16(append(frame, byte(kind), 0), uint16(len(body)))
		if _, err := host.Write(append(frame, body...)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(call uint32, kind wire.Kind) {
		t.Helper()
		var head [8]byte
		if _, err := io.ReadFull(host, head[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, host, int64(binary.BigEndian.Uint16(head[6:]))); err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint32(head[:]); got != call || wire.Kind(head[4]) != kind {
			t.Fatalf("heard kind %d of call %d, want %d of %d", head[4], got, kind, call)
		}
	}
	hello := wire.Hello{Version: wire.Version}
	hear(0, wire.KindHello)
	for range 3 {
		say(1, wire.KindPrepare, wire.PrepareRequest{RootSerial: "root"})
		hear(1, wire.KindReply)
		say(0, wire.KindHello, hello)
		hear(0, wire.KindHello)
	}
	say(1, wire.KindConfigure, wire.Config{})
	hear(1, wire.KindReply)
	say(0, wire.KindHello, hello)
	if err := <-ended; err == nil || err.Error() != "protocol violation: a hello out of place" {
		t.Errorf("the session ended with %v", err)
	}
}
