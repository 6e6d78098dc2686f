package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine bounds a line from the monitor. Replies to what is asked here are
// below 1 KB.
const maxLine = 64 << 10

var errClosed = errors.New("the monitor's connection is closed")

// A monitor speaks QMP, one command at a time. Its peer may be hostile: a
// line that is too long or that is no JSON object ends the conversation, and
// whatever was not asked for is dropped.
type monitor struct {
	conn    *net.UnixConn
	turn    chan struct{} // held by the command under way
	replies chan reply    // one slot
	closed  chan struct{}
	greeted chan struct{}

	mu     sync.Mutex
	reason string // of the SHUTDOWN event
	id     uint64
}

type reply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	ID    uint64          `json:"id"`
	QMP   json.RawMessage `json:"QMP"`
	Event string          `json:"event"`
	Data  struct {
		Reason string `json:"reason"`
	} `json:"data"`
}

func newMonitor(c net.Conn) *monitor {
	m := &monitor{
		conn: c.(*net.UnixConn), turn: make(chan struct{}, 1), replies: make(chan reply, 1),
		closed: make(chan struct{}), greeted: make(chan struct{}),
	}
	go m.read()
	return m
}

func (m *monitor) read() {
	defer close(m.closed)
	defer m.conn.Close()
	r := bufio.NewReaderSize(m.conn, maxLine)
	greeted := false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil { // also a line that does not fit
			return
		}
		var v reply
		if json.Unmarshal(line, &v) != nil {
			return
		}
		switch {
		case v.QMP != nil && !greeted:
			greeted = true
			close(m.greeted)
		case v.Event == "SHUTDOWN":
			m.mu.Lock()
			m.reason = clip(v.Data.Reason)
			m.mu.Unlock()
		case v.Return != nil || v.Error != nil:
			// It takes the place of one that nobody waits for any more.
			select {
			case <-m.replies:
			default:
			}
			m.replies <- v
		}
	}
}

func (m *monitor) stopReason() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reason
}

// wait waits until everything that QEMU wrote before its end is read. Should
// someone else hold its end of the socket, there is nothing to wait for.
func (m *monitor) wait() {
	m.conn.SetReadDeadline(time.Now().Add(time.Second))
	<-m.closed
}

func (m *monitor) negotiate(ctx context.Context) error {
	select {
	case <-m.greeted:
	case <-m.closed:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := m.execute(ctx, "qmp_capabilities", nil, nil)
	return err
}

// execute runs one command; file, if any, goes along with it.
func (m *monitor) execute(ctx context.Context, name string, arg any, file *os.File) (json.RawMessage, error) {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.id++
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{name, arg, m.id})
	if err != nil {
		return nil, err
	}
	if err := m.send(append(line, '\n'), file); err != nil {
		return nil, fmt.Errorf("%w: %w", errClosed, err)
	}
	for {
		select {
		case v := <-m.replies:
			if v.ID != m.id {
				continue // of a command that was given up
			}
			if v.Error != nil {
				return nil, fmt.Errorf("qemu refused %s: %s", name, clip(v.Error.Desc))
			}
			return v.Return, nil
		case <-m.closed:
			return nil, errClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *monitor) send(line []byte, file *os.File) error {
	if file == nil {
		_, err := m.conn.Write(line)
		return err
	}
	n, _, err := m.conn.WriteMsgUnix(line, unix.UnixRights(int(file.Fd())), nil)
	if err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	return err
}

// clip makes text of the peer fit for an error: one short printable line.
func clip(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return lastLine(s)
}
