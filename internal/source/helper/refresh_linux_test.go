package helper

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/source"
)

// renewable is a command that prints another value every time it is run, and
// that it expires. The values' beginning is spelt out nowhere in the command.
func renewable(t *testing.T) (command, canary string) {
	t.Helper()
	count := filepath.Join(t.TempDir(), "count")
	canary = "canary-of-refresh-"
	return fmt.Sprintf(`echo >> '%s'; n=$(wc -l < '%[1]s'); v=$(echo %s | base64 -d); `+
		`echo "diagnostics $n" >&2; printf '{"value":"%%s%%06d","expires_at":"2040-01-02T03:04:05Z"}' "$v" "$n"`, count, base64.StdEncoding.EncodeToString([]byte(canary))), canary
}

// asked asks a helper for a newer value, as a keeper does.
func asked(t *testing.T, f *os.File, name string) (source.Fresh, string) {
	t.Helper()
	if err := source.WriteMessage(f, source.Wanted{Name: name}, source.MaxHeader); err != nil {
		t.Fatal(err)
	}
	var fresh source.Fresh
	if err := source.ReadMessage(f, &fresh, source.MaxHeader); err != nil {
		t.Fatal(err)
	}
	return fresh, readText(t, f, fresh.Len)
}

// TestRefreshMemory: a helper whose values expire lives on with the keeper, reads
// what it was started for and nothing else, and holds no value while it waits.
func TestRefreshMemory(t *testing.T) {
	t.Setenv("CUTOUT_TEST_A", "canary-of-env-0001")
	command, canary := renewable(t)
	broken := filepath.Join(t.TempDir(), "broken")
	c := &Client{}
	defer c.Close()
	if _, err := c.Read(t.Context(), []Request{
		{"A", "env", "CUTOUT_TEST_A"},
		{"B", "exec", command},
		{"C", "exec", `printf '{"value":"value-of-c-0001","expires_at":"2040-01-02T03:04:05Z"}'; test ! -e '` + broken + `'`},
	}); err != nil {
		t.Fatal(err)
	}
	f, err := c.HandOver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, values := readValues(t, f); len(values) != 3 || values[1] != canary+"000001" {
		t.Fatalf("got %d values", len(values))
	}
	for i := 2; i < 5; i++ {
		fresh, value := asked(t, f, "B")
		if want := fmt.Sprintf("%s%06d", canary, i); value != want || fresh.Failed != "" || fresh.Expires.Year() != 2040 {
			t.Errorf("got %q, %+v", value, fresh)
		}
	}
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if fresh, _ := asked(t, f, "C"); !strings.Contains(fresh.Failed, "exit status 1") || fresh.Len != 0 {
		t.Errorf("got %+v", fresh)
	}
	for _, name := range []string{"A", "D", ""} { // one that does not expire, and none
		if fresh, _ := asked(t, f, name); fresh.Failed == "" {
			t.Errorf("it reads %q", name)
		}
	}
	proc := fmt.Sprintf("/proc/%d/", c.cmd.Process.Pid)
	for _, word := range []string{canary, "canary-of-env"} {
		n, err := copies(t, proc, word)
		for deadline := time.Now().Add(10 * time.Second); (n > 0 || err != nil) && time.Now().Before(deadline); n, err = copies(t, proc, word) {
			time.Sleep(10 * time.Millisecond) // it has answered, and is about to execute itself anew
		}
		if n > 0 || err != nil {
			t.Errorf("it holds %d copies of %s while it waits, %v", n, word, err)
		}
	}
	if to, err := os.Readlink(proc + "fd/2"); err != nil || to != os.DevNull {
		t.Errorf("its standard error is %s, %v", to, err)
	}
	c.Close() // of no concern to it
	if fresh, _ := asked(t, f, "B"); fresh.Failed != "" {
		t.Errorf("without its client: %+v", fresh)
	}
	f.Close()
	endsSoon(t, c)
}

// TestRefreshHangsUp: a helper that lives on ends with the keeper, and with it
// what it runs.
func TestRefreshHangsUp(t *testing.T) {
	dir := t.TempDir()
	fifo, again := filepath.Join(dir, "fifo"), filepath.Join(dir, "again")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Client{}
	if _, err := c.Read(t.Context(), []Request{{"A", "exec", `if test -e '` + again + `'; then exec 3>'` + fifo + `'; echo running >&3; exec sleep 600; fi; touch '` + again +
		`'; printf '{"value":"value-of-a-0001","expires_at":"2040-01-02T03:04:05Z"}'`}}); err != nil {
		t.Fatal(err)
	}
	f, err := c.HandOver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	readValues(t, f)
	if err := source.WriteMessage(f, source.Wanted{Name: "A"}, source.MaxHeader); err != nil {
		t.Fatal(err)
	}
	out, err := os.Open(fifo) // once the command runs
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	f.Close()
	ended := make(chan struct{})
	go func() { io.ReadAll(out); close(ended) }()
	select {
	case <-ended: // the command held the other end
	case <-time.After(time.Minute):
		t.Error("the command was left running")
	}
	c.Close()
	endsSoon(t, c)
}

func endsSoon(t *testing.T, c *Client) {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(time.Minute):
		t.Error("it lives on without a keeper")
	}
}

// copies counts word in the memory of a process, as root. It fails while the
// process executes another program.
func copies(t *testing.T, proc, word string) (n int, err error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Log("only root can read the memory of the helper")
		return 0, nil
	}
	maps, err := os.ReadFile(proc + "maps")
	if err != nil {
		return 0, err
	}
	mem, err := os.Open(proc + "mem")
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	read := 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		data, err := io.ReadAll(io.NewSectionReader(mem, from, to-from))
		if err == nil {
			read += len(data)
		}
		n += bytes.Count(data, []byte(word))
	}
	if read == 0 {
		return n, errors.New("nothing could be read")
	}
	return n, nil
}
