package sourcetest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zalando/go-keyring"
)

// Keyring runs a session bus and a real keyring on it, unlocked, in a home of
// their own, and lets this process and its children find them.
func Keyring(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyring") // sockets need short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{"HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		t.Setenv(name, dir)
	}
	bus := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address", "--address=unix:path="+filepath.Join(dir, "bus"))
	address := firstLine(t, bus)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)

	daemon := exec.Command("gnome-keyring-daemon", "--foreground", "--components=secrets", "--unlock", "--control-directory="+dir)
	daemon.Stdin = strings.NewReader("a password")
	firstLine(t, daemon) // the socket's path, once it serves
	for range 100 {      // which may be before it has unlocked
		if err = keyring.Set("sourcetest", "ready", "yes"); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the keyring stays locked: %v", err)
}

// firstLine starts a program that lives until the test ends, and returns the
// first line that it prints.
func firstLine(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (run tools/prepare.sh dbus-daemon gnome-keyring-daemon)", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s says nothing: %v", cmd.Path, err)
	}
	return strings.TrimSpace(line)
}
