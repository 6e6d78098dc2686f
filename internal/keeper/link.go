package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/netstack/frame"
)

// A LinkKind says what a workload that is no machine of ours is plugged into.
type LinkKind string

// The links, by what the descriptor is that the keeper inherits for them.
const (
	LinkTap  LinkKind = "tap"  // a TAP device
	LinkUnix LinkKind = "unix" // a socket that one peer connects to, which speaks QEMU's stream framing
	// LinkListen is a TCP socket for programs that take a proxy; there is no
	// link then.
	LinkListen LinkKind = "listen"
)

// Unplugged is what [Sandbox.End] returns of a boundary whose workload has
// ended.
const Unplugged = "the workload has unplugged itself"

var errUnplugged = errors.New(Unplugged)

// openLink takes over the descriptor fd.
func openLink(kind LinkKind, fd int) (frame.Link, error) {
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("open link: %w", err)
	}
	f := os.NewFile(uintptr(fd), "link")
	switch kind {
	case LinkTap:
		return frame.NewDevice(f)
	case LinkUnix:
		defer f.Close() // FileListener duplicates it
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("open link: %w", err)
		}
		return &socket{listener: peerListener{Listener: l}}, nil
	}
	return nil, fmt.Errorf("unknown link %q", kind)
}

// A socket is a cable into which the first peer plugs itself, and no other.
type socket struct {
	listener net.Listener

	mu     sync.Mutex
	peer   *frame.Stream // nil until there is one
	closed bool
}

// Next returns the peer's next frame, and waits for a peer first.
func (s *socket) Next() ([]byte, error) {
	s.mu.Lock()
	peer := s.peer
	s.mu.Unlock()
	if peer == nil {
		conn, err := s.listener.Accept()
		s.listener.Close()
		if err != nil {
			return nil, err
		}
		peer = frame.NewStream(conn)
		s.mu.Lock()
		s.peer = peer
		closed := s.closed
		s.mu.Unlock()
		if closed {
			peer.Close()
		}
	}
	return peer.Next()
}

// WriteFrames writes to the peer. Without one the frames are lost.
func (s *socket) WriteFrames(n int, parts func(i int) [][]byte) error {
	s.mu.Lock()
	peer := s.peer
	s.mu.Unlock()
	if peer == nil {
		return nil
	}
	return peer.WriteFrames(n, parts)
}

// Close unplugs the peer, if there is one, and lets none in.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.listener.Close()
	if s.peer != nil {
		return s.peer.Close()
	}
	return nil
}
