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

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source"
	"golang.org/x/sys/unix"
)

// The hand-over is a conversation over one inherited socket. The CLI sends a
// length and a JSON specification; the keeper answers with JSON lines until
// the sandbox has ended. When the socket closes the other side is gone: a
// keeper then ends its sandbox. The values come from the source helper, over
// another socket, if there are secrets.

// The keeper's ends of the sockets.
const (
	handoverFD = 3
	valuesFD   = 4
	linkFD     = 5 // of the workload, if it is no machine of ours
	metricsFD  = 6 // where metrics are asked for, if they can be
)

// A Message is what the keeper tells its client. Exactly one field is set.
type Message struct {
	Progress *Progress `json:"progress,omitempty"`
	Notice   string    `json:"notice,omitempty"` // one line for the user
	Failed   *Failure  `json:"failed,omitempty"` // the sandbox did not start
	Ready    bool      `json:"ready,omitempty"`  // the control socket answers

	Workload *Workload    `json:"workload,omitempty"` // before Ready, if there is no machine
	Event    *audit.Event `json:"event,omitempty"`    // refusals and the like, if there is no machine
	Ended    string       `json:"ended,omitempty"`    // the sandbox was ended, and why
	Log      *LogEnd      `json:"log,omitempty"`      // the last message: nothing more is recorded
}

// A LogEnd is where an audit log ended.
type LogEnd struct {
	Lines int    `json:"lines"`
	Head  string `json:"head"` // chain value of the last line, which proves all of them
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

// sendSpec writes the specification.
func sendSpec(w io.Writer, spec Spec) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode specification: %w", err)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

// A handover is what a keeper begins with.
type handover struct {
	spec    Spec
	store   *secret.Store
	secrets []*secret.Secret
	logins  map[string]secret.Value // credentials that are not the guest's, by their names
}

// receiveHandover reads the specification from fd, and the values and further
// credentials from valuesFD. Values go from the socket straight into a store
// that is made for them; no buffer of this process ever holds one. The store is
// the caller's to close, also after an error, if it is not nil.
func receiveHandover(fd, valuesFD int) (h handover, err error) {
	if err := receiveJSON(fd, maxSpec, &h.spec); err != nil {
		return h, err
	}
	var head source.Header
	names := h.spec.logins()
	if len(h.spec.Secrets) > 0 || len(names) > 0 {
		if err := receiveJSON(valuesFD, source.MaxHeader, &head); err != nil {
			return h, err
		}
	}
	lens := make([]int, len(head.Values))
	for i, v := range head.Values {
		lens[i] = v.Len
	}
	logins := head.Values[max(0, len(head.Values)-len(names)):]
	head.Values = head.Values[:len(head.Values)-len(logins)]
	if err := checkHeader(head, h.spec); err != nil {
		return h, err
	}
	for i, name := range names {
		if i >= len(logins) || logins[i].Name != name {
			return h, fmt.Errorf("there is no credential for %s", name)
		}
	}
	if h.store, err = secret.NewStore(secret.Room(lens)); err != nil {
		return h, err
	}
	if h.secrets, err = receiveValues(valuesFD, head, h.spec, h.store); err != nil {
		return h, err
	}
	h.logins = make(map[string]secret.Value)
	for _, l := range logins {
		if h.logins[l.Name], err = h.store.ReadValue(valuesFD, l.Len); err != nil {
			return h, err
		}
	}
	return h, nil
}

// The names under which credentials come that are not the guest's, behind the
// values of the secrets and in this order.
const (
	LoginName   = "--egress-proxy-auth" // of the upstream proxy
	HeadersName = "--otlp-headers"      // of the collector
)

// logins lists the credentials that s needs.
func (s Spec) logins() []string {
	var out []string
	if s.Net.Egress != nil && s.Net.Egress.Login {
		out = append(out, LoginName)
	}
	if s.OTLP != nil && s.OTLP.Headers {
		out = append(out, HeadersName)
	}
	return out
}

// receiveJSON reads a length and as much JSON.
func receiveJSON(fd int, limit uint32, into any) error {
	var size [4]byte
	if err := readFull(fd, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > limit {
		return errors.New("what is handed over is too large")
	}
	data := make([]byte, n)
	if err := readFull(fd, data); err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("decode what is handed over: %w", err)
	}
	return nil
}

// checkHeader checks what is said of the values.
func checkHeader(h source.Header, spec Spec) error {
	if len(h.Values) != len(spec.Secrets) {
		return errors.New("not every secret has a value")
	}
	for i, v := range h.Values {
		s := spec.Secrets[i]
		switch {
		case v.Name != s.Name:
			return errors.New("values and secrets are not in the same order")
		case v.Len > secret.MaxValue:
			return fmt.Errorf("the value of %s is longer than %d bytes", s.Name, secret.MaxValue)
		case v.Len < secret.MinValue && !s.Short || v.Len < 1:
			return fmt.Errorf("the value of %s is shorter than %d bytes", s.Name, secret.MinValue)
		}
	}
	return nil
}

func receiveValues(fd int, h source.Header, spec Spec, store *secret.Store) ([]*secret.Secret, error) {
	secrets := make([]*secret.Secret, len(h.Values))
	for i, v := range h.Values {
		s := spec.Secrets[i]
		value, err := store.ReadValue(fd, v.Len)
		if err != nil {
			for _, got := range secrets[:i] {
				store.Release(got.Value)
			}
			return nil, fmt.Errorf("the value of %s: %w", s.Name, err)
		}
		s.Value, s.Expires = value, v.Expires
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
