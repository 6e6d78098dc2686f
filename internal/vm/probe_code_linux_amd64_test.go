package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The bytes are what the assembler makes of the source.
func TestProbeCode(t *testing.T) {
	for _, tool := range []string{"as", "objcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skipped: needs %s (binutils) to assemble testdata/probe.S", tool)
		}
	}
	dir := t.TempDir()
	obj, bin := filepath.Join(dir, "o"), filepath.Join(dir, "bin")
	for _, cmd := range []*exec.Cmd{
		exec.Command("as", "-o", obj, "testdata/probe.S"),
		exec.Command("objcopy", "-O", "binary", "-j", ".text", obj, bin),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	want, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	for off, code := range probeCode {
		if off+len(code) > len(got) {
			t.Fatalf("piece at %#x is longer than the source", off)
		}
		copy(got[off:], code)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("byte %#x is %#x, the source says %#x", i, got[i], want[i])
		}
	}
}
