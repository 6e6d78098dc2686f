package relay

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// buffers are for datagrams that are being passed on, of any length.
var buffers = sync.Pool{New: func() any { return new([1 << 16]byte) }}

// receive waits for one datagram and gives it to pass. No buffer is held while
// it waits, or a guest's sessions would take 64 KiB each: sockets that cannot
// be waited for otherwise are those of pings, which end sooner.
func receive(s Socket, pass func([]byte)) error {
	conn, ok := s.(syscall.Conn)
	if !ok {
		buf := make([]byte, 1<<16)
		n, err := s.Read(buf)
		if err == nil {
			pass(buf[:n])
		}
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var buf *[1 << 16]byte
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[1 << 16]byte)
		for {
			if n, failed = unix.Read(int(fd), buf[:]); failed != unix.EINTR {
				break
			}
		}
		if failed != nil {
			buffers.Put(buf)
		}
		return failed != unix.EAGAIN
	})
	if err == nil {
		err = failed
	}
	if err == nil { // not before: closing the socket waits for the end of Read
		pass(buf[:n])
		buffers.Put(buf)
	}
	return err
}
