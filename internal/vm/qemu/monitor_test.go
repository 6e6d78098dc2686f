package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// peer is QEMU's end of a monitor.
func peer(t testing.TB) (*monitor, net.Conn) {
	t.Helper()
	ours, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	m := newMonitor(ours)
	t.Cleanup(func() { c.Close(); ours.Close(); <-m.closed })
	return m, c
}

// answer answers every command by what reply makes of its name and id.
func answer(c net.Conn, reply func(name string, id uint64) string) {
	for in := bufio.NewScanner(c); in.Scan(); {
		var q struct {
			Execute string
			ID      uint64
		}
		if json.Unmarshal(in.Bytes(), &q) != nil {
			return
		}
		fmt.Fprint(c, reply(q.Execute, q.ID))
	}
}

func TestMonitor(t *testing.T) {
	m, c := peer(t)
	fmt.Fprintln(c, `{"QMP": {"version": {}}}`)
	go answer(c, func(name string, id uint64) string {
		switch name {
		case "bad":
			return fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "no \u001b[31mway\nnow"}, "id": %d}`+"\n", id)
		case "late": // an answer of another command, then an event, then its own
			return fmt.Sprintf(`{"return": "other", "id": %d}`+"\n"+`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`+"\n"+`{"return": "own", "id": %d}`+"\n", id-1, id)
		}
		return fmt.Sprintf(`{"return": {}, "id": %d}`+"\n", id)
	})
	ctx := t.Context()
	if err := m.negotiate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := m.execute(ctx, "bad", nil, nil); err == nil || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("error %q", err)
	}
	got, err := m.execute(ctx, "late", nil, nil)
	if err != nil || string(got) != `"own"` {
		t.Errorf("%s, %v", got, err)
	}
	if r := m.stopReason(); r != "guest-reset" {
		t.Errorf("reason %q", r)
	}
}

// The answer to a command that was given up does not keep out the next one,
// whichever is read first.
func TestMonitorLateAnswer(t *testing.T) {
	m, c := peer(t)
	fmt.Fprintln(c, `{"return": "of one that was given up", "id": 0}`+"\n"+`{"return": "own", "id": 1}`+"\n"+`{"QMP": {}}`)
	<-m.greeted // both are read
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if got, err := m.execute(ctx, "stop", nil, nil); err != nil || string(got) != `"own"` {
		t.Errorf("%s, %v", got, err)
	}
}

// A monitor that does not answer costs no more than the caller's patience.
func TestMonitorSilent(t *testing.T) {
	m, c := peer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.negotiate(ctx); err == nil {
		t.Error("no greeting, no error")
	}
	fmt.Fprintln(c, `{"QMP": {}}`)
	if _, err := m.execute(ctx, "stop", nil, nil); err == nil {
		t.Error("no answer, no error")
	}
	c.Close()
	if _, err := m.execute(t.Context(), "stop", nil, nil); err == nil {
		t.Error("no connection, no error")
	}
}

func TestMonitorEndsOnNonsense(t *testing.T) {
	for name, line := range map[string]string{
		"no JSON":   "hello\n",
		"an array":  "[1,2]\n",
		"too long":  `{"QMP": "` + strings.Repeat("x", maxLine) + `"}` + "\n",
		"no end":    strings.Repeat(" ", maxLine+1),
		"bad types": `{"event": 7}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			m, c := peer(t)
			go c.Write([]byte(line))
			select {
			case <-m.closed:
			case <-time.After(5 * time.Second):
				t.Error("goes on")
			}
		})
	}
}

func FuzzMonitor(f *testing.F) {
	f.Add([]byte(`{"QMP": {}}` + "\n" + `{"return": {}, "id": 1}` + "\n"))
	f.Add([]byte(`{"event": "SHUTDOWN", "data": {"reason": "x"}}` + "\n" + `{"error": {"desc": "d"}, "id": 1}` + "\n"))
	f.Add(bytes.Repeat([]byte("{}\n"), 1000))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, c := peer(t)
		go func() {
			c.Write(in)
			c.Close()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if m.negotiate(ctx) == nil {
			m.execute(ctx, "stop", nil, nil)
		}
		if r := m.stopReason(); len(r) > 200 || strings.ContainsAny(r, "\x00\n\x1b") {
			t.Errorf("reason %q", r)
		}
	})
}

func TestTail(t *testing.T) {
	tl := newTail()
	var all bytes.Buffer
	text := strings.Repeat("0123456789abcdef\n", 4000)
	tl.drain(strings.NewReader(text+"the end\r\n\r\n"), &all)
	if got := tl.String(); len(got) > tailSize || !strings.HasSuffix(text+"the end\r\n\r\n", got) {
		t.Errorf("a tail of %d bytes", len(got))
	}
	if all.Len() != len(text)+len("the end\r\n\r\n") {
		t.Errorf("%d bytes were passed on", all.Len())
	}
	if got := lastLine(tl.String()); got != "the end" {
		t.Errorf("last line %q", got)
	}
	all.Reset()
	newTail().drain(io.LimitReader(endless{}, maxConsole+100_000), &all)
	if all.Len() != maxConsole {
		t.Errorf("%d bytes of an endless console were passed on", all.Len())
	}
	if got := lastLine("the end\nFailed to open /dev/null for OFD lock probing: No such file or directory\n"); got != "the end" {
		t.Errorf("last line %q", got)
	}
	if got := lastLine("a\x1b]0;title\x07b"); strings.ContainsAny(got, "\x1b\x07") {
		t.Errorf("%q", got)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
