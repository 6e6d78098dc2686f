package agent

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cutoutdev/cutout/internal/guest/wire"
)

// FuzzHost gives a session arbitrary bytes. The session is full, so that
// everything is read and decided, and nothing carried out.
func FuzzHost(f *testing.F) {
	frame := func(call uint32, kind wire.Kind, body string) []byte {
		b := binary.BigEndian.AppendUint32(nil, call)
		b = append(b, byte(kind), 0)
		return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
	}
	f.Add(frame(1, wire.KindConfigure, `{"Hostname":"x","Net":{"Addr4":"10.0.0.2/24"}}`))
	f.Add(append(frame(1, wire.KindStart, `{"Args":["bHM="],"TTY":true}`), frame(1, wire.KindResize, `{"Rows":1,"Cols":2}`)...))
	f.Add(append(frame(1, wire.KindPut, `{"Path":"/x"}`), frame(1, wire.KindSignal, `{"Number":9}`)...))
	f.Add(frame(1, wire.KindGet, `{"Upper":true}`))
	f.Add(append(frame(2, wire.KindPing, `{}`), frame(3, wire.KindClock, `{"Time":"2026-11-23T00:00:00Z"}`)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newSession(&script{r: bytes.NewReader(data)}, &hosted{}, newChildren(false))
		s.calls = maxCalls
		if err := s.run(0); err == nil {
			t.Fatal("no error at the end")
		}
		if len(s.running) != 0 {
			t.Fatal("a command is kept")
		}
	})
}

type script struct{ r *bytes.Reader }

func (s *script) Read(p []byte) (int, error)  { return s.r.Read(p) }
func (s *script) Write(p []byte) (int, error) { return len(p), nil }
func (s *script) Close() error                { return nil }
