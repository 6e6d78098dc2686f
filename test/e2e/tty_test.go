package e2e

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// TestTerminal: with a terminal on both sides the command gets one of the
// same size, which follows; keys go to the guest as they are, and the user's
// terminal is afterwards as it was.
func TestTerminal(t *testing.T) {
	t.Parallel()
	home, err := newHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cutout, "run", "-q", "-m", "256m", "--", "sh", "-c",
		`trap 'stty size' WINCH; tty; stty size; while :; do read line && echo "got $line"; [ "$line" = end ] && exit 5; done`)
	cmd.Env = append(os.Environ(), "CUTOUT_HOME="+home)
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	defer tty.Close()
	if err := pty.Setsize(ptmx, &pty.Winsize{Rows: 33, Cols: 101}); err != nil {
		t.Fatal(err)
	}
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // or it would not be told the size
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(bootLimit, func() { cmd.Process.Kill(); ptmx.Close() })
	defer watchdog.Stop()

	lines := bufio.NewScanner(ptmx)
	want := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.TrimSpace(lines.Text()) == text {
				return
			}
		}
		t.Fatalf("the terminal never showed %q", text)
	}
	want("/dev/pts/0")
	want("33 101")
	if err := pty.Setsize(ptmx, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	want("40 120")
	if _, err := io.WriteString(ptmx, "one\rend\r"); err != nil {
		t.Fatal(err)
	}
	want("got one")
	want("got end")
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("ended with %v, want exit status 5", err)
	}
	after, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if *before != *after {
		t.Error("the terminal was not put back")
	}
}
