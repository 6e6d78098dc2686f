package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/testnet"
)

// A world is a server, a sandbox that calls it, and the sandbox's keeper.
type world struct {
	dir      string
	path     string // of the program
	id       string // of the sandbox
	upstream *upstream
	cutout   *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	scan     *scanner
}

// newWorld starts everything and looks once, before the first request.
func newWorld(cutout string) (w *world, err error) {
	value := newValue()
	w = &world{path: cutout}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.dir, err = os.MkdirTemp("", "cutout-memscan-"); err != nil {
		return w, err
	}
	ca, err := testnet.NewCA()
	if err != nil {
		return w, err
	}
	pem := filepath.Join(w.dir, "ca.pem")
	if err := ca.WriteFile(pem); err != nil {
		return w, err
	}
	if w.upstream, err = newUpstream(ca, value); err != nil {
		return w, err
	}
	w.cutout = exec.Command(cutout, "run", "-q", "--secret", "CANARY@"+host,
		"--connect-to", host+":443="+w.upstream.Addr().String(), "--tls-upstream-ca-cert", pem,
		"--", "sh", "-c", `hostname; echo ready; while read -r line; do eval "$line"; echo; echo done; done`)
	w.cutout.Env = append(os.Environ(), "CANARY="+value)
	w.cutout.Stderr = os.Stderr
	in, err1 := w.cutout.StdinPipe()
	out, err2 := w.cutout.StdoutPipe()
	if err := errors.Join(err1, err2, w.cutout.Start()); err != nil {
		return w, err
	}
	w.in, w.out = in, bufio.NewReader(out)
	if w.id, err = w.out.ReadString('\n'); err != nil {
		return w, fmt.Errorf("the guest said nothing: %w", err)
	}
	w.id = strings.TrimSpace(w.id) // its name is the sandbox's
	if err := w.until("ready"); err != nil {
		return w, err
	}
	pid, err := keeperOf(w.cutout.Process.Pid)
	if err != nil {
		return w, err
	}
	w.scan, err = newScanner(pid, value)
	return w, err
}

// replace gives the secret another value, as its user does.
func (w *world) replace() error {
	value := newValue()
	w.upstream.expect(value)
	cmd := exec.Command(w.path, "modify", w.id, "--secret", "CANARY@"+host)
	cmd.Env = append(os.Environ(), "CANARY="+value)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("replace the value: %w\n%s", err, out)
	}
	w.scan.next(value)
	return nil
}

func (w *world) close() {
	if w.cutout != nil && w.cutout.Process != nil {
		w.in.Close() // ends the guest's loop
		w.cutout.Wait()
	}
	if w.upstream != nil {
		w.upstream.Close()
	}
	os.RemoveAll(w.dir)
}

// until waits for a line of the guest's.
func (w *world) until(line string) error {
	for {
		got, err := w.out.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the guest ended before %q: %w", line, err)
		}
		if strings.TrimSpace(got) == line {
			return nil
		}
	}
}

// load has the guest send its requests over one connection and looks at the
// keeper meanwhile, and each time after the connection was closed.
func (w *world) load(curl, path string) (during *row, after []*row, err error) {
	fmt.Fprintf(w.in, `curl -sS %s -o /dev/null -H "X-Api-Key: $CANARY" -u "me:$CANARY" "https://%s/%s?[1-%d]"`+"\n", curl, host, path, requests)
	done := make(chan error, 1)
	go func() { done <- w.until("done") }()
	during = new(row)
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				return nil, nil, err
			}
			running = false
		case <-time.After(pause):
			if err := w.scan.look(during); err != nil {
				return nil, nil, err
			}
		}
	}
	for i := range 2 {
		time.Sleep(settle)
		r := &row{empty: i == 1 || path != "echo"}
		if err := w.scan.look(r); err != nil {
			return nil, nil, err
		}
		after = append(after, r)
	}
	return during, after, nil
}
