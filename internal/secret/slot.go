package secret

import (
	"errors"
	"net"
	"time"
)

// slotWait bounds the wait for a slot: all are taken only while sixteen
// upstreams of this sandbox have stopped reading.
const slotWait = 30 * time.Second

// writeSwapped writes text, which stands at base, to conn with its swaps
// made. Where one touches text it does so in a scratch slot, which is zeroed
// before the call returns.
func (s *Store) writeSwapped(conn net.Conn, text []byte, base int, swaps []swap, stop <-chan struct{}) error {
	if !touches(swaps, base, len(text)) {
		_, err := conn.Write(text)
		return err
	}
	region, err := s.pin()
	if err != nil {
		return err
	}
	defer s.unpin()
	off, err := s.takeSlot(stop)
	if err != nil {
		return err
	}
	slot := region[off : off+len(text)]
	defer func() {
		clear(slot)
		s.slot <- off
	}()
	copy(slot, text)
	if err := s.put(slot, base, swaps); err != nil {
		return err
	}
	return writeRecord(conn, slot)
}

func (s *Store) takeSlot(stop <-chan struct{}) (int, error) {
	select {
	case off := <-s.slot:
		return off, nil
	default:
	}
	wait := time.NewTimer(slotWait)
	defer wait.Stop()
	select {
	case off := <-s.slot:
		return off, nil
	case <-stop:
		return 0, net.ErrClosed
	case <-wait.C:
		return 0, errors.New("no scratch memory is free")
	}
}

func touches(swaps []swap, base, n int) bool {
	for _, w := range swaps {
		if w.at < base+n && w.at+w.n > base {
			return true
		}
	}
	return false
}

// put copies the parts of the swaps that fall into slot, which stands at
// base.
func (s *Store) put(slot []byte, base int, swaps []swap) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	for _, w := range swaps {
		from, to := max(w.at, base), min(w.at+w.n, base+len(slot))
		if from < to {
			part := slot[from-base : to-base]
			copy(part, s.mem.bytes[w.off+from-w.at:])
			w.key.apply(part, from-w.at)
		}
	}
	return nil
}
