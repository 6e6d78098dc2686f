package e2e

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMonitorOverthrown is ATTACKS E9 with the whole product: somebody who
// has taken QEMU over reaches nothing from the cage that a sandbox really has,
// is sent no value, and can tell the keeper what he likes: his sandbox fails,
// or shows what he makes up, escaped.
func TestMonitorOverthrown(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root to put another program in QEMU's place")
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	server := w.upstreams["API"].Addr().String()
	for _, tt := range []struct {
		mode       string
		code       int
		says, gets string // on standard error, and from the keeper
	}{
		{"noise", 125, "cutout: ", ""},
		{"a line without an end", 125, "cutout: ", ""},
		{"forgeries", 3, "?]0;forged?", base64.StdEncoding.EncodeToString([]byte("API_KEY=$MSB_API_KEY"))},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			home, value := ownHome(t), newValue()
			bin := filepath.Join(t.TempDir(), "monitor")
			build := exec.Command("go", "build", "-trimpath", "-o", bin,
				"-ldflags", "-X 'main.mode="+tt.mode+"' -X main.home="+home+" -X main.server="+server, "./testdata/monitor")
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build the monitor: %v\n%s", err, out)
			}
			cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" "$2" && shift 2 && exec "$@"`, "sh", bin, qemu,
				cutout, "run", "--no-snapshot", "-m", "192m", "--secret", "API_KEY@api.example.test",
				"--connect-to", "api.example.test:443="+server, "--", "true")
			cmd.Env = append(os.Environ(), "CUTOUT_HOME="+home, "API_KEY="+value)
			f := newFamily(t)
			b := follow(t, home, cmd)
			code := b.exit()
			said := b.stderr.String()
			t.Log(b.stdout.String() + said)
			if code != tt.code || !strings.Contains(said, tt.says) || strings.ContainsAny(said, "\x1b\a") {
				t.Errorf("exit status %d, %q", code, said)
			}
			eventually(t, 20*time.Second, f.left)
			if err := checkClean(home); err != nil {
				t.Error(err)
			}
			if tt.gets == "" {
				return // a sandbox that did not start leaves nothing to look at
			}
			logs, _ := filepath.Glob(filepath.Join(home, "sandboxes", "*", "console.log")) // the pattern is well formed
			if len(logs) != 1 {
				t.Fatalf("logs: %v", logs)
			}
			text, err := os.ReadFile(logs[0])
			if err != nil {
				t.Fatal(err)
			}
			newCanary(value).check(t, "what QEMU is sent", strings.NewReader(string(text)))
			if got := string(text); !strings.Contains(got, "tried all") || strings.Contains(got, "reached: ") || !strings.Contains(got, tt.gets) {
				t.Errorf("the console has %s", got)
			}
		})
	}
}
