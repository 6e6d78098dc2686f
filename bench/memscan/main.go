// Command memscan counts the copies of a value in the memory of a real
// keeper, outside the locked store, while a real guest has it used, when its
// value is replaced by another, and afterwards; then in a process that uses
// the store and the proxy as libraries and outlives them.
//
//	go run ./bench/memscan bin/cutout
//
// It must run as root: an undumpable process is closed to everybody else. The
// process is stopped for each look. Every readable mapping is searched for the
// value as it is, in Huffman coding (HPACK), Base64 at three alignments,
// hexadecimal, and with every character escaped as in URLs, JSON and HTML; for
// the former value too, once it was replaced. The locked store itself is not
// readable and so not counted; where the kernel has no memfd_secret(2) it is,
// and memscan says so.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"
)

func main() {
	if os.Args[0] == libraryName {
		libraryMain()
		return
	}
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

	around []string // what stands around what was found nevertheless
}

// errLeft is the verdict.
var errLeft = errors.New("a copy was left where none may be")

func run(cutout string) error {
	fmt.Printf("copies of a value, %d requests a row, each with it in X-Api-Key and in Basic\n", requests)
	fmt.Printf("%-46s %5s %6s %6s  %s\n", "stage", "looks", "median", "most", "forms")
	kept, err := runKeeper(cutout)
	if err != nil {
		return err
	}
	used, err := runLibrary()
	if err != nil {
		return err
	}
	if !kept || !used {
		return errLeft
	}
	return nil
}

// runKeeper is the table's part about a keeper. It reports whether nothing was
// left.
func runKeeper(cutout string) (clean bool, err error) {
	w, err := newWorld(cutout)
	if err != nil {
		return false, err
	}
	defer w.close()
	clean = true
	tell := func(rows ...*row) {
		for _, r := range rows {
			r.print()
			clean = clean && !r.failed()
		}
	}
	idle := &row{stage: "idle, before the first request", empty: true}
	if err := w.scan.look(idle); err != nil {
		return false, err
	}
	tell(idle)
	for _, replaced := range []bool{false, true} {
		more := ""
		if replaced {
			if err := w.replace(); err != nil {
				return false, err
			}
			more = ", replaced"
			r := &row{stage: "idle, after the value was replaced", empty: true}
			if err := w.scan.look(r); err != nil {
				return false, err
			}
			tell(r)
		}
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
				return false, fmt.Errorf("%s: %w", s.name, err)
			}
			s.name += more
			during.stage, after[0].stage, after[1].stage = s.name, s.name+", 5 s after", s.name+", 10 s after"
			tell(during, after[0], after[1])
		}
	}
	return clean, w.upstream.check(8 * requests)
}
