package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// A message is one packet between the caller and the namespaces. It may come
// with a descriptor.
type message struct {
	Failed  *Failure `json:"failed,omitempty"`
	Tap     bool     `json:"tap,omitempty"`     // with the interface's descriptor
	Config  bool     `json:"config,omitempty"`  // with a file that holds it
	Started bool     `json:"started,omitempty"` // with the terminal's descriptor, if there is one
	Exit    *Exit    `json:"exit,omitempty"`
	Signal  int      `json:"signal,omitempty"`
}

// A channel carries messages.
type channel struct{ conn *net.UnixConn }

// newChannel returns a channel and its other end.
func newChannel() (*channel, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create channel: %w", err)
	}
	c, err := openChannel(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "channel"), nil
}

// openChannel takes fd over.
func openChannel(fd int) (*channel, error) {
	f := os.NewFile(uintptr(fd), "channel")
	defer f.Close() // FileConn duplicates it
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open channel: %w", err)
	}
	return &channel{conn.(*net.UnixConn)}, nil
}

func (c *channel) send(m message, f *os.File) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if f != nil {
		rights = unix.UnixRights(int(f.Fd()))
	}
	_, _, err = c.conn.WriteMsgUnix(data, rights, nil)
	return err
}

// maxMessage is far more than any message is long.
const maxMessage = 16 << 10

// receive returns the next message and what came with it; io.EOF when the
// other side is gone.
func (c *channel) receive() (m message, f *os.File, err error) {
	data, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, rn, _, _, err := c.conn.ReadMsgUnix(data, rights)
	switch {
	case errors.Is(err, unix.ECONNRESET):
		return m, nil, io.EOF
	case err != nil:
		return m, nil, err
	case n == 0:
		return m, nil, io.EOF
	}
	if rn > 0 {
		if f, err = received(rights[:rn]); err != nil {
			return m, nil, err
		}
	}
	return m, f, json.Unmarshal(data[:n], &m)
}

func received(rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil || len(fds) == 0 {
			continue
		}
		unix.CloseOnExec(fds[0])
		return os.NewFile(uintptr(fds[0]), "received"), nil
	}
	return nil, nil
}
