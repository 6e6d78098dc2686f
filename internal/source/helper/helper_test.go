package helper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/keeper"
	"github.com/cutoutdev/cutout/internal/source"
)

// TestMain makes this test binary a helper when it is started as one.
func TestMain(m *testing.M) {
	Main(keeper.Harden)
	os.Exit(m.Run())
}

// handedOver reads what a keeper would get.
func handedOver(t *testing.T, c *Client) (names []string, values []string) {
	t.Helper()
	f, err := c.HandOver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return readValues(t, f)
}

func readValues(t *testing.T, f *os.File) (names []string, values []string) {
	t.Helper()
	var h source.Header
	if err := source.ReadMessage(f, &h, source.MaxHeader); err != nil {
		t.Fatal(err)
	}
	for _, v := range h.Values {
		names, values = append(names, v.Name), append(values, readText(t, f, v.Len))
	}
	return names, values
}

func readText(t *testing.T, f *os.File, n int) string {
	t.Helper()
	data := make([]byte, n)
	if _, err := io.ReadFull(f, data); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestKilled: a helper that somebody ends is told as what it is.
func TestKilled(t *testing.T) {
	c := &Client{}
	defer c.Close()
	if _, err := c.Read(t.Context(), []Request{{"A", "exec", "echo value-of-a-0001"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.ended
	err := c.Check(t.Context(), []Text{{"the command", "text"}})
	if e := (*source.Error)(nil); !errors.As(err, &e) || e.Text != "the source helper ended before it had answered" || e.Hint == "" {
		t.Errorf("error %v", err)
	}
}

// TestHelper: values of several sources go to the keeper, in order, and
// nothing of them to the client.
func TestHelper(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("value-of-file-01\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CUTOUT_TEST_A", "value-of-a-0001")
	var told []string
	c := &Client{Notice: func(text string) { told = append(told, text) }}
	defer c.Close()
	results, err := c.Read(t.Context(), []Request{
		{"A", "env", "CUTOUT_TEST_A"},
		{"B", "file", file},
		{"C", "exec", `printf '{"value":"value-of-c-0001","expires_at":"2040-01-02T03:04:05Z"}'`},
	})
	if err != nil {
		t.Fatal(err)
	}
	if results[0].Len != 15 || results[1].Len != 16 || results[2].Expires.Year() != 2040 {
		t.Errorf("got %+v", results)
	}
	if len(told) != 1 || !strings.HasPrefix(told[0], "B: other users can read ") {
		t.Errorf("told %q", told)
	}
	for _, value := range []string{"value-of-a-0001", "value-of-file-01", "value-of-c-0001"} {
		err := c.Check(t.Context(), []Text{{"-w", "/tmp"}, {"the command", "curl -d VALUE-" + value}})
		if err == nil || !strings.HasSuffix(err.Error(), "stands in the command") || hint(err) == "" || strings.Contains(err.Error(), value) {
			t.Errorf("%s: got %v", value, err)
		}
	}
	if err := c.Check(t.Context(), []Text{{"the command", "curl -d $A"}}); err != nil {
		t.Error(err)
	}
	names, values := handedOver(t, c)
	if fmt.Sprint(names) != "[A B C]" || fmt.Sprint(values) != "[value-of-a-0001 value-of-file-01 value-of-c-0001]" {
		t.Errorf("got %v, %v", names, values)
	}
}

// TestFailures: one source that fails does not keep the others from being
// searched for.
func TestFailures(t *testing.T) {
	c := &Client{}
	defer c.Close()
	results, err := c.Read(t.Context(), []Request{
		{"A", "exec", "exit 3"},
		{"B", "exec", "printf 'two\nlines'"},
		{"C", "exec", "echo value-of-c-0001"},
		{"D", "env", "CUTOUT_TEST_UNSET"},
		{"E", "magic", "x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(results[0].Failed, "exit status 3") || results[0].Hint == "" || !results[1].LineBreak || results[2].Failed != "" ||
		results[3].Failed == "" || results[4].Failed == "" {
		t.Errorf("got %+v", results)
	}
	if err := c.Check(t.Context(), []Text{{"-u", "value-of-c-0001"}}); err == nil {
		t.Error("a value was not found")
	}
	if _, err := c.Read(t.Context(), []Request{{"A", "exec", "exit 3"}}); err == nil {
		t.Error("values were read twice")
	}
}

// TestEnvironment: what a source runs gets the user's environment but for
// the variables that are secrets, and no socket of the helper's.
func TestEnvironment(t *testing.T) {
	t.Setenv("CUTOUT_TEST_A", "value-of-a-0001")
	t.Setenv("CUTOUT_TEST_B", "value-of-b-0001")
	c := &Client{}
	defer c.Close()
	if _, err := c.Read(t.Context(), []Request{
		{"A", "env", "CUTOUT_TEST_A"},
		{"B", "exec", `echo "${CUTOUT_TEST_A-none} $CUTOUT_TEST_B"`},
		{"C", "exec", `tr '\0' ' ' < /proc/$PPID/cmdline; ls /proc/self/fd | tr '\n' ' '`},
	}); err != nil {
		t.Fatal(err)
	}
	_, values := handedOver(t, c)
	if values[1] != "none value-of-b-0001" {
		t.Errorf("a command got %q", values[1])
	}
	if values[2] != "cutout-source 0 1 2 3 " { // 3 is the directory that ls reads
		t.Errorf("a command got %q", values[2])
	}
}

// TestHangsUp: a helper ends with its client, whatever it waits for, and
// with it what it runs.
func TestHangsUp(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	c := &Client{}
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(ctx, []Request{{"A", "exec", "exec 3>'" + fifo + "'; echo running >&3; exec sleep 600"}})
		done <- err
	}()
	f, err := os.Open(fifo) // once the command runs
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	why := errors.New("the user has had enough")
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	c.Close()
	ended := make(chan struct{})
	go func() { io.ReadAll(f); close(ended) }()
	select {
	case <-ended: // the command held the other end
	case <-time.After(time.Minute):
		t.Error("the command was left running")
	}
}

// TestNobodyThere: without secrets there is no helper.
func TestNobodyThere(t *testing.T) {
	c := &Client{}
	defer c.Close()
	_, err1 := c.Read(t.Context(), nil)
	err2 := c.Check(t.Context(), []Text{{"-w", "/tmp"}})
	f, err3 := c.HandOver(t.Context())
	if f != nil || errors.Join(err1, err2, err3) != nil || c.cmd != nil {
		t.Errorf("got %v, %v, %v", err1, err2, err3)
	}
}

// TestEscaper: a command's words cannot act on the terminal.
func TestEscaper(t *testing.T) {
	var out bytes.Buffer
	e := escaper{&out}
	io.WriteString(e, "touch your key\r\n\x1b]0;owned\x07 pass")
	io.WriteString(e, "word:\n")
	if want := "touch your key\n\\x1b]0;owned\\a password:\n"; out.String() != want {
		t.Errorf("got %q", &out)
	}
}
