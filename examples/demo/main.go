// Command demo shows what Cutout is for, with a real VM and real servers on
// this machine, and checks every step:
//
//	go run ./examples/demo bin/cutout
//
// It exits with status 1 if a server received something else than it should
// have, or a refusal had another reason.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo CUTOUT")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(cutout string) error {
	dir, err := os.MkdirTemp("", "cutout-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir)
	if err != nil {
		return err
	}
	defer w.close()

	fmt.Printf(`A program that we do not trust needs an API at api.example.test. We hold its key,
%s; the program must be able to use it and never see it.

  $ export API_KEY=%[1]s
  $ cutout run --secret API_KEY@api.example.test,broken.example.test -- sh script

Four servers on this machine play the internet. Starting the VM…

`, w.key)

	out, err := runGuest(cutout, w)
	if err != nil {
		return err
	}
	failed := 0
	for _, s := range steps {
		said, err := s.check(w, out[s.name])
		if err != nil {
			failed++
			fmt.Printf("✗ %s\n      %v\n      the guest printed %q\n", s.story, err, out[s.name])
			continue
		}
		fmt.Printf("✓ %s\n      %s\n", s.story, said)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d steps differ", failed, len(steps))
	}
	fmt.Printf("\nThe key was in %d requests, all of them to api.example.test. The guest never had it.\n", w.valueCount())
	return nil
}

// newKey is the real credential, new for every demo.
func newKey() string {
	var b [12]byte
	rand.Read(b[:])
	return "sk-live-" + hex.EncodeToString(b[:])
}

// A step is what the guest runs, and what must have come of it.
type step struct {
	name  string
	story string
	guest string // shell
	check func(w *world, out string) (said string, err error)
}

// runTimeout is generous: a VM under emulation on a busy machine.
const runTimeout = 5 * time.Minute

// runGuest runs every step in one sandbox and returns the output of each.
func runGuest(cutout string, w *world) (map[string]string, error) {
	var script strings.Builder
	script.WriteString("exec 2>&1\n")
	for _, s := range steps {
		fmt.Fprintf(&script, "echo '@@%s'\n%s\n", s.name, s.guest)
	}
	file := filepath.Join(w.dir, "script.sh")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		return nil, err
	}
	args := append([]string{"run", "--quiet", "--secret", "API_KEY@" + allowed + "," + broken, "--copy", file + ":/script.sh"}, w.flags()...)
	args = append(args, "--", "sh", "/script.sh")

	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, cutout, args...)
	cmd.Env = append(os.Environ(), "API_KEY="+w.key)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("cutout run: %w\n%s%s", err, stdout.String(), stderr.String())
	}
	out := map[string]string{}
	name := ""
	for line := range strings.Lines(stdout.String()) {
		if n, found := strings.CutPrefix(strings.TrimSpace(line), "@@"); found {
			name = n
			continue
		}
		out[name] += line
	}
	if strings.Contains(stdout.String()+stderr.String(), w.key) {
		return nil, errors.New("the guest printed the value")
	}
	return out, nil
}
