package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/net/http2/hpack"

	"github.com/cutoutdev/cutout/internal/keeper"
)

// A scanner looks for one value in the memory of one process.
type scanner struct {
	pid   int
	forms map[string][]byte
}

// newScanner checks that the search finds what is there: the guest's name of
// its host, which the process must have in memory.
func newScanner(pid int, value string) (*scanner, error) {
	control := &scanner{pid, map[string][]byte{"control": []byte(host)}}
	r := new(row)
	if err := control.look(r); err != nil {
		return nil, err
	}
	if r.most() == 0 {
		return nil, errors.New("the search does not find even a host's name in the process")
	}
	return &scanner{pid, formsOf(value)}, nil
}

// next looks for another value from here on, and for the former one.
func (s *scanner) next(value string) {
	forms := formsOf(value)
	for name, form := range s.forms {
		forms["former "+name] = form
	}
	s.forms = forms
}

func formsOf(value string) map[string][]byte {
	forms := map[string][]byte{
		"raw":     []byte(value),
		"huffman": huffman(value),
		"hex":     []byte(hex.EncodeToString([]byte(value))),
		"HEX":     []byte(strings.ToUpper(hex.EncodeToString([]byte(value)))),
		"percent": each(value, "%%%02X"),
		"json":    each(value, `\u%04x`),
		"html":    each(value, "&#%d;"),
	}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte("xx"[:shift] + value + "xx"))
		// without the letters that neighbours change
		forms["base64"+strconv.Itoa(shift)] = []byte(text[(shift*8+5)/6 : (shift+len(value))*8/6])
	}
	return forms
}

// huffman is the coding of value without its last byte, which the value's end
// and what follows share.
func huffman(value string) []byte {
	b := hpack.AppendHuffmanString(nil, value)
	return b[:len(b)-1]
}

func each(value, format string) []byte {
	var b []byte
	for _, c := range []byte(value) {
		b = fmt.Appendf(b, format, c)
	}
	return b
}

// look stops the process, counts every form in all that can be read of it,
// and lets it go on.
func (s *scanner) look(r *row) error {
	if err := syscall.Kill(s.pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop the process: %w", err)
	}
	defer syscall.Kill(s.pid, syscall.SIGCONT)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", s.pid))
	if err != nil {
		return err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", s.pid))
	if err != nil {
		return fmt.Errorf("%w (memscan must run as root)", err)
	}
	defer mem.Close()
	if r.forms == nil {
		r.forms = make(map[string]int)
	}
	count, read := 0, 0
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var perm string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); n != 3 || perm[0] != 'r' {
			continue
		}
		buf := make([]byte, to-from)
		n, _ := mem.ReadAt(buf, int64(from)) // what is locked says EIO
		read += n
		for name, form := range s.forms {
			k := bytes.Count(buf[:n], form)
			count += k
			r.forms[name] = max(r.forms[name], k)
			if k > 0 && r.empty {
				r.around = append(r.around, around(from, buf[:n], form))
			}
		}
	}
	if read < 1<<20 {
		return fmt.Errorf("only %d bytes of the process could be read", read)
	}
	r.looks = append(r.looks, count)
	return nil
}

// around is what stands around the first copy: whose it was.
func around(base uint64, data, form []byte) string {
	const width = 160
	i := bytes.Index(data, form)
	return fmt.Sprintf("at %#x: %q HERE %q", base+uint64(i), data[max(0, i-width):i], data[i+len(form):min(len(data), i+len(form)+width)])
}

func (r *row) most() int {
	if len(r.looks) == 0 {
		return 0
	}
	return slices.Max(r.looks)
}

func (r *row) failed() bool { return r.empty && r.most() > 0 }

func (r *row) print() {
	median := 0
	if n := len(r.looks); n > 0 {
		median = slices.Sorted(slices.Values(r.looks))[n/2]
	}
	var found []string
	for name, n := range r.forms {
		if n > 0 {
			found = append(found, fmt.Sprintf("%s %d", name, n))
		}
	}
	slices.Sort(found)
	fmt.Printf("%-46s %5d %6d %6d  %s\n", r.stage, len(r.looks), median, r.most(), strings.Join(found, ", "))
	for _, text := range r.around {
		fmt.Println("  ", text)
	}
}

// keeperOf finds the keeper among the children of a CLI.
func keeperOf(cli int) (int, error) {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, dir := range dirs {
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		if len(fields) > 1 && fields[1] == strconv.Itoa(cli) && strings.HasPrefix(string(line), keeper.Arg0) {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, errors.New("no keeper found")
}
