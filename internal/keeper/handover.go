package keeper

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/cutoutdev/cutout/internal/secret"
	"golang.org/x/sys/unix"
)

// The hand-over is a conversation over one inherited socket. The CLI sends a
// length, a JSON header and then the bare values, one after the other; the
// keeper answers with JSON lines until the sandbox has ended. When the
// socket closes the other side is gone: a keeper then ends its sandbox.

// handoverFD is the keeper's end of the socket.
const handoverFD = 3

// A header announces the values that follow it.
type header struct {
	Spec   Spec          `json:"spec"`
	Values []valueHeader `json:"values"`
}

type valueHeader struct {
	Name string `json:"name"`
	Len  int    `json:"len"`
}

// A Message is what the keeper tells its client. Exactly one field is set.
type Message struct {
	Progress *Progress `json:"progress,omitempty"`
	Notice   string    `json:"notice,omitempty"` // one line for the user
	Failed   *Failure  `json:"failed,omitempty"` // the sandbox did not start
	Ready    bool      `json:"ready,omitempty"`  // the control socket answers
	Ended    string    `json:"ended,omitempty"`  // the sandbox was ended, and why
}

// Progress is a stage of something slow; Total is 0 where it is not known.
type Progress struct {
	Stage string `json:"stage"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// A Failure is an error with advice.
type Failure struct {
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

func (f *Failure) Error() string { return f.Text }

// sendHandover writes spec and values and zeroes the values.
func sendHandover(w io.Writer, spec Spec, values []Value) error {
	defer func() {
		for _, v := range values {
			clear(v.Data)
		}
	}()
	h := header{Spec: spec}
	for _, v := range values {
		h.Values = append(h.Values, valueHeader{Name: v.Name, Len: len(v.Data)})
	}
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode specification: %w", err)
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data)))); err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	for _, v := range values {
		if _, err := w.Write(v.Data); err != nil {
			return err
		}
	}
	return nil
}

// receiveHandover reads what sendHandover wrote. Values go from the socket
// straight into a store that is made for them; no buffer of this process ever
// holds one. The store is the caller's to close, also after an error, if it
// is not nil.
func receiveHandover(fd int) (Spec, *secret.Store, []*secret.Secret, error) {
	h, err := receiveHeader(fd)
	if err != nil {
		return Spec{}, nil, nil, err
	}
	lens := make([]int, len(h.Values))
	for i, v := range h.Values {
		lens[i] = v.Len
	}
	store, err := secret.NewStore(secret.Room(lens))
	if err != nil {
		return Spec{}, nil, nil, err
	}
	secrets, err := receiveValues(fd, h, store)
	return h.Spec, store, secrets, err
}

// receiveHeader reads all but the values, and checks what is said of them.
func receiveHeader(fd int) (header, error) {
	var h header
	var size [4]byte
	if err := readFull(fd, size[:]); err != nil {
		return h, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxSpec {
		return h, errors.New("specification is too large")
	}
	data := make([]byte, n)
	if err := readFull(fd, data); err != nil {
		return h, err
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return h, fmt.Errorf("decode specification: %w", err)
	}
	if len(h.Values) != len(h.Spec.Secrets) {
		return h, errors.New("not every secret has a value")
	}
	for i, v := range h.Values {
		s := h.Spec.Secrets[i]
		switch {
		case v.Name != s.Name:
			return h, errors.New("values and secrets are not in the same order")
		case v.Len > secret.MaxValue:
			return h, fmt.Errorf("the value of %s is longer than %d bytes", s.Name, secret.MaxValue)
		case v.Len < secret.MinValue && !s.Short || v.Len < 1:
			return h, fmt.Errorf("the value of %s is shorter than %d bytes", s.Name, secret.MinValue)
		}
	}
	return h, nil
}

func receiveValues(fd int, h header, store *secret.Store) ([]*secret.Secret, error) {
	secrets := make([]*secret.Secret, len(h.Values))
	for i, v := range h.Values {
		s := h.Spec.Secrets[i]
		value, err := store.ReadValue(fd, v.Len)
		if err != nil {
			return nil, fmt.Errorf("the value of %s: %w", s.Name, err)
		}
		s.Value = value
		secrets[i] = &s
	}
	return secrets, nil
}

func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read hand-over: %w", err)
		case n == 0:
			return fmt.Errorf("read hand-over: %w", io.ErrUnexpectedEOF)
		}
		b = b[n:]
	}
	return nil
}

// maxMessage bounds a line from the keeper.
const maxMessage = 64 << 10

// readMessages calls f for each message until the keeper is gone.
func readMessages(conn net.Conn, f func(Message)) error {
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), maxMessage)
	for lines.Scan() {
		var m Message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return fmt.Errorf("decode keeper's message: %w", err)
		}
		f(m)
	}
	return lines.Err()
}

// socketPair returns two connected ends: one for this process, one for a
// child.
func socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create %s socket: %w", name, err)
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	own := os.NewFile(uintptr(fds[0]), name)
	defer own.Close() // FileConn duplicates it
	conn, err := net.FileConn(own)
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("create %s socket: %w", name, err)
	}
	return conn, os.NewFile(uintptr(fds[1]), name), nil
}
