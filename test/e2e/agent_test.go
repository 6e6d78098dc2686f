package e2e

import (
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// overthrow is what root of the guest does to its agent.
//
//go:embed testdata/agent/overthrow.py
var overthrow string

// TestAgentOverthrown is ATTACKS E3 in a real machine: root of the guest
// writes what it likes to the host in the agent's stead, or stops, changes or
// ends the agent. The sandbox fails and says so; nothing of it is left, and
// the keeper has not crashed.
func TestAgentOverthrown(t *testing.T) {
	value := newValue()
	all := []struct {
		how  string
		says string // with the failure of a sandbox; "" = it goes on, until its time is up
	}{
		{"noise", "protocol violation: "},
		{"a stall", ""},
		{"a changed agent", "the guest has crashed or restarted"},
		{"a reply to nothing", "protocol violation: the agent replied to call 9999, "},
		{"another greeting", "protocol violation: the agent greets first, and once"},
		{"an endless message", "protocol violation: a message of more than "},
		{"the end of nothing", "protocol violation: the agent ended call 1, which runs nothing"},
		{"a flood", ""},
		{"a crash", "the guest has crashed or restarted"},
		{"a restart", "the guest has crashed or restarted"},
	}
	if os.Getenv("CUTOUT_TEST_LONG") == "" {
		all = all[:3]
	}
	for _, tt := range all {
		t.Run(tt.how, func(t *testing.T) {
			args := append(smallest, "--secret", "API_KEY@api.example.test")
			code, says := 125, "cutout: the sandbox was ended: "
			if tt.says == "" {
				args = append(args, "--timeout", "8s")
				code, says = 124, "cutout: the command ran for 8s, its --timeout, and was ended"
			}
			b := start(t, []string{"API_KEY=" + value}, append(args, "--", "python3", "-c", overthrow, tt.how)...)
			b.waitLine("now")
			family := descendants(b.cmd.Process.Pid)
			if len(family) < 3 {
				t.Errorf("there were %d processes", len(family))
			}
			got := b.exit()
			said := b.stderr.String()
			t.Log(said)
			if got != code || !strings.Contains(said, says) || !strings.Contains(said, tt.says) {
				t.Errorf("exit status %d, %q", got, said)
			}
			if strings.Contains(b.stdout.String()+said, value) {
				t.Error("the value is in what was printed")
			}
			eventually(t, 20*time.Second, func() error { return gone(family) })
			if err := checkClean(b.home); err != nil {
				t.Error(err)
			}
			if code == 125 {
				if out, _ := runIn(t, b.home, nil, "audit", "latest"); !strings.Contains(out, "failed: ") {
					t.Errorf("it is not on record: %s", out)
				}
			}
			logs, _ := filepath.Glob(filepath.Join(b.home, "sandboxes", "*", "keeper.log")) // the pattern is well formed
			for _, log := range logs {
				if text, err := os.ReadFile(log); err != nil || len(text) > 0 {
					t.Errorf("the keeper's last words: %s, %v", text, err)
				}
			}
		})
	}
}
