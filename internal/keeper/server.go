package keeper

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/guest"
)

// execProtocol is the name under which a connection is upgraded to a
// command's stream.
const execProtocol = "cutout-exec/1"

// A control is what the socket's handlers work on.
type control struct {
	guest   *guest.Client
	env     func() []string // of every command
	secrets *holder
	info    func() Info
	net     func() NetState
	dump    func(context.Context, io.Writer) error
	events  *fanout
	died    func() error // why the machine has ended, if it has
}

// listen opens the control socket: 0600 in a directory that is 0700.
func listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, SocketName)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return peerListener{Listener: l, control: true}, nil
}

// A peerListener admits only processes of this uid and root, whatever the
// modes of the directories above say; and on a control socket none of a
// workload's, which may have our uid.
type peerListener struct {
	net.Listener
	control bool
}

// admits says whom.
func (l peerListener) admits(conn *net.UnixConn) bool {
	uid, err := peerUID(conn)
	return err == nil && (uid == os.Geteuid() || uid == 0) && !(l.control && peerOutside(conn))
}

func (l peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.admits(conn.(*net.UnixConn)) {
			return conn, nil
		}
		conn.Close()
	}
}

// serve answers on l until ctx ends.
func (c *control) serve(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/sandbox", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(c.info()) })
	mux.HandleFunc("GET /v1/net", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(c.net()) })
	mux.HandleFunc("POST /v1/secrets", c.change)
	if c.guest != nil {
		mux.HandleFunc("PUT /v1/files", c.putFiles)
		mux.HandleFunc("GET /v1/memory", c.getMemory)
		mux.HandleFunc("POST /v1/exec", c.exec)
	}
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	srv.Serve(l)
}

func fail(w http.ResponseWriter, status int, err error) {
	f := Failure{Text: err.Error()}
	if own, ok := errors.AsType[*Failure](err); ok {
		f = *own
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(f)
}

func (c *control) putFiles(w http.ResponseWriter, r *http.Request) {
	dir := r.URL.Query().Get("dir")
	if !filepath.IsAbs(dir) {
		fail(w, http.StatusBadRequest, fmt.Errorf("%q is not an absolute path", dir))
		return
	}
	if err := c.guest.PutTar(r.Context(), dir, r.Body); err != nil {
		fail(w, http.StatusUnprocessableEntity, err)
	}
}

// getMemory is for whoever wants to check that the guest holds no value.
func (c *control) getMemory(w http.ResponseWriter, r *http.Request) {
	if err := c.dump(r.Context(), w); err != nil {
		fail(w, http.StatusInternalServerError, err)
	}
}

// maxCommand bounds the JSON of a command: the kernel's own limit for
// arguments and environment is 2 MiB.
const maxCommand = 4 << 20

func (c *control) exec(w http.ResponseWriter, r *http.Request) {
	var cmd Command
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCommand)).Decode(&cmd); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("decode command: %w", err))
		return
	}
	if r.Header.Get("Upgrade") != execProtocol {
		fail(w, http.StatusUpgradeRequired, fmt.Errorf("exec speaks %s", execProtocol))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	proc, err := c.guest.Start(ctx, guest.Command{
		Args: cmd.Args, Env: mergeEnv(c.env(), cmd.Env), Dir: cmd.Dir, User: cmd.User,
		TTY: cmd.TTY, Rows: cmd.Rows, Cols: cmd.Cols,
	})
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, err)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Time{})
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", execProtocol)

	s := execStream{proc: proc, out: frameWriter{w: conn}, died: c.died}
	forget := c.events.add(func(e audit.Event) { s.out.writeJSON(frameEvent, e) })
	defer forget()
	go func() {
		s.input(rw)
		cancel() // a client that is gone takes its command along
	}()
	s.output(ctx, forget)
}

// An execStream serves one command's stream.
type execStream struct {
	proc    *guest.Process
	out     frameWriter
	untaken atomic.Int64 // bytes of input that the command has not taken
	died    func() error
}

// input serves the client's frames until it is gone or breaks the protocol.
func (s *execStream) input(r io.Reader) {
	var buf []byte
	stdin := make(chan []byte, stdinWindow/maxFrame*inputSlots)
	defer close(stdin)
	go s.feed(stdin)
	for {
		kind, payload, err := readFrame(r, &buf)
		if err != nil {
			return
		}
		switch kind {
		case frameStdin:
			if s.untaken.Add(int64(len(payload))) > stdinWindow {
				return
			}
			select {
			case stdin <- bytes.Clone(payload):
			default:
				return // a flood of small frames
			}
		case frameResize:
			var v size
			if json.Unmarshal(payload, &v) == nil {
				s.proc.Resize(v.Rows, v.Cols)
			}
		case frameSignal:
			s.proc.Signal(string(payload))
		}
	}
}

// inputSlots is how many frames, for each of full size, may be on their way:
// typing sends a byte at a time.
const inputSlots = 1024

// feed writes the input to the command and tells what it took. Input for a
// command that has closed its end is taken and dropped.
func (s *execStream) feed(stdin <-chan []byte) {
	open := true
	for b := range stdin {
		if len(b) == 0 {
			open = false
			s.proc.Stdin.Close()
			continue
		}
		if open {
			_, err := s.proc.Stdin.Write(b)
			open = err == nil
		}
		s.untaken.Add(-int64(len(b)))
		s.out.write(frameTaken, binary.BigEndian.AppendUint32(nil, uint32(len(b))))
	}
}

// output sends what the command prints and how it ended.
func (s *execStream) output(ctx context.Context, flushEvents func()) {
	pumped := make(chan struct{}, 2)
	for kind, r := range map[frameKind]io.Reader{frameStdout: s.proc.Stdout, frameStderr: s.proc.Stderr} {
		go func() {
			if r != nil {
				s.out.pump(kind, r)
			}
			pumped <- struct{}{}
		}()
	}
	exit, err := s.proc.Wait(ctx)
	if err == nil {
		<-pumped
		<-pumped
	}
	flushEvents()
	e := Exit{Code: exit.Code, NotFound: exit.NotFound, NotExecutable: exit.NotExecutable, Reason: exit.Reason}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // why the sandbox was ended
		} else if why := s.died(); why != nil {
			err = why // the agent's link breaks before the machine has ended
		}
		e.Error = err.Error()
	}
	s.out.writeJSON(frameExit, e)
}

// mergeEnv joins two environments; a name in more wins, and names stand once.
func mergeEnv(base, more []string) []string {
	out := make([]string, 0, len(base)+len(more))
	at := make(map[string]int)
	for _, list := range [][]string{base, more} {
		for _, e := range list {
			name := e
			for i := range len(e) {
				if e[i] == '=' {
					name = e[:i]
					break
				}
			}
			if i, ok := at[name]; ok {
				out[i] = e
				continue
			}
			at[name] = len(out)
			out = append(out, e)
		}
	}
	return out
}
