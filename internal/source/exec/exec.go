// Package exec reads values from what commands print: password managers,
// cloud command lines, scripts.
package exec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/source"
)

// DefaultTimeout is long enough to type a passphrase.
const DefaultTimeout = 2 * time.Minute

// A Source runs commands in the environment and directory of this process,
// without standard input.
type Source struct {
	Stderr  io.Writer     // what commands say; nil = nowhere
	Timeout time.Duration // of one command; 0 = DefaultTimeout
}

// Read runs the command ref: a JSON array of a program and its arguments, or
// a line for /bin/sh. The value is what it prints, without one line end, or,
// if that is a JSON object of "value" and perhaps "expires_at" (RFC 3339) and
// nothing else, what it says.
func (s *Source) Read(ctx context.Context, ref string) (source.Value, error) {
	argv, err := parse(ref)
	if err != nil {
		return source.Value{}, err
	}
	timeout := s.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	b, err := s.run(ctx, argv)
	if err == nil {
		b.DropLineEnd()
		var v source.Value
		if v, err = unwrap(b); err == nil {
			return v, nil
		}
	}
	b.Close()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = source.Errorf("it gets no standard input; unlock what it asks for before", "the command took longer than %v", timeout)
	}
	return source.Value{}, err
}

func parse(ref string) ([]string, error) {
	if !strings.HasPrefix(strings.TrimSpace(ref), "[") {
		return []string{"/bin/sh", "-c", ref}, nil
	}
	var argv []string
	if json.Unmarshal([]byte(ref), &argv) != nil || len(argv) == 0 || argv[0] == "" {
		return nil, source.Errorf(`write exec:["PROGRAM","ARGUMENT"], or a command line for the shell`, "the command is no JSON array of texts")
	}
	return argv, nil
}

// run returns what argv prints, read straight into the buffer.
func (s *Source) run(ctx context.Context, argv []string) (*source.Buffer, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	defer in.Close()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = in, s.Stderr
	cmd.WaitDelay = time.Second // whatever it left behind with our pipe
	if err := cmd.Start(); err != nil {
		return nil, source.Errorf("check the name and that it is in PATH", "run the command: %v", err)
	}
	in.Close()
	stop := context.AfterFunc(ctx, func() { out.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := source.NewBuffer()
	if err == nil {
		if _, err = b.ReadFrom(out); err != nil {
			cmd.Process.Kill() // it may write for ever
		}
	}
	waited := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err != nil:
	case errors.As(waited, &exit):
		err = source.Errorf("run it by hand: it must print the value on standard output and exit with 0", "the command failed: %v", exit)
	case waited != nil && !errors.Is(waited, exec.ErrWaitDelay):
		err = waited
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// An envelope is output that says more than the value.
type envelope struct {
	Value   *string    `json:"value"`
	Expires *time.Time `json:"expires_at"`
}

// unwrap reads an envelope; what is not one is the value itself.
func unwrap(b *source.Buffer) (source.Value, error) {
	plain := source.Value{Data: b}
	if !bytes.HasPrefix(b.Bytes(), []byte("{")) {
		return plain, nil
	}
	dec := json.NewDecoder(bytes.NewReader(b.Bytes()))
	dec.DisallowUnknownFields()
	var e envelope
	if err := dec.Decode(&e); err != nil || e.Value == nil || dec.More() {
		if looksWrapped(b.Bytes()) {
			return source.Value{}, source.Errorf(`print {"value":"…","expires_at":"2030-01-02T15:04:05Z"}, or the value alone`,
				"the command printed a JSON object that is not understood")
		}
		return plain, nil
	}
	inner, err := source.Hold([]byte(*e.Value))
	if err != nil {
		return source.Value{}, err
	}
	b.Close()
	v := source.Value{Data: inner}
	if e.Expires != nil {
		v.Expires = *e.Expires
	}
	return v, nil
}

// looksWrapped reports whether text has the names of an envelope: then it is
// a mistake in one and not a value.
func looksWrapped(text []byte) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return false
	}
	_, expires := fields["expires_at"]
	return expires
}
