package helper

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestProcess: what others can see of a helper holds no value, and its memory
// is closed to them.
func TestProcess(t *testing.T) {
	t.Setenv("CUTOUT_TEST_A", "value-of-a-0001")
	c := &Client{}
	defer c.Close()
	if _, err := c.Read(t.Context(), []Request{{"A", "env", "CUTOUT_TEST_A"}, {"B", "exec", "echo value-of-b-0001"}}); err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d/", c.cmd.Process.Pid)
	for _, name := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(proc + name)
		if err != nil && os.Getuid() == 0 {
			t.Error(err)
		}
		if strings.Contains(string(data), "value-of-") {
			t.Errorf("%s holds a value", name)
		}
	}
	limits, err := os.ReadFile(proc + "limits")
	if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Errorf("it may dump core: %v", err)
	}
	if os.Getuid() != 0 {
		if f, err := os.Open(proc + "mem"); err == nil {
			f.Close()
			t.Error("its memory is open to others of its user")
		}
	}
}
