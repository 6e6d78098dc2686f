// Command memscan counts the copies of a value in the memory of a real
// keeper, outside the locked store, while a real guest has it used.
//
//	go run ./bench/memscan bin/cutout
//
// It must run as root: an undumpable process is closed to everybody else. The
// keeper is stopped for each look. Every readable mapping is searched for the
// value as it is, in Huffman coding (HPACK), Base64 at three alignments,
// hexadecimal, and with every character escaped as in URLs, JSON and HTML.
// The locked store itself is not readable and so not counted; where the
// kernel has no memfd_secret(2) it is, and memscan says so.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: memscan CUTOUT")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "memscan:", err)
		os.Exit(1)
	}
}

const (
	requests = 1000
	settle   = 5 * time.Second
	pause    = 200 * time.Millisecond // between two looks under load
)

// A row is one line of the table. Counts are the median and the most of the
// looks that were taken.
type row struct {
	stage string
	looks []int
	forms map[string]int
	empty bool // nothing may be found
}

func run(cutout string) error {
	w, err := newWorld(cutout)
	if err != nil {
		return err
	}
	defer w.close()
	fmt.Printf("copies of a value in the keeper, %d requests a row, each with it in X-Api-Key and in Basic\n", requests)
	fmt.Printf("%-38s %5s %6s %6s  %s\n", "stage", "looks", "median", "most", "forms")
	idle := &row{stage: "idle, before the first request", empty: true}
	if err := w.scan.look(idle); err != nil {
		return err
	}
	idle.print()
	failed := idle.failed()
	for _, s := range []struct {
		name, curl, path string
	}{
		{"HTTP/1.1", "--http1.1", "ok"},
		{"HTTP/2", "--http2", "ok"},
		{"HTTP/1.1, echoing upstream", "--http1.1", "echo"},
		{"HTTP/2, echoing upstream", "--http2", "echo"},
	} {
		during, after, err := w.load(s.curl, s.path)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		during.stage, after[0].stage, after[1].stage = s.name, s.name+", 5 s after", s.name+", 10 s after"
		after[0].empty, after[1].empty = s.path != "echo", true
		for _, r := range []*row{during, after[0], after[1]} {
			r.print()
			failed = failed || r.failed()
		}
	}
	if n := w.upstream.right.Load(); n != 4*requests {
		return fmt.Errorf("the upstream got the value %d times, want %d", n, 4*requests)
	}
	if failed {
		return fmt.Errorf("a copy was left where none may be")
	}
	return nil
}
