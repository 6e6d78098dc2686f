package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/vm"
)

// ownSnapshots gives a home snapshots of its own, of which it has none yet.
func ownSnapshots(t *testing.T) (home string) {
	t.Helper()
	needEmulation(t)
	home, err := newHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(home, "snapshots")); err != nil {
		t.Fatal(err)
	}
	return home
}

// needEmulation skips a test where machines boot because KVM works.
func needEmulation(t *testing.T) {
	t.Helper()
	if vm.ProbeKVM(t.Context()).Usable {
		t.Skip("skipped: under KVM there are no snapshots")
	}
}

// snapshots returns the files of the home's snapshots.
func snapshots(t *testing.T, home string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(home, "snapshots", "*.snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// smallest is the machine of these tests.
var smallest = []string{"run", "-m", "192m"}

// runIn runs a command to its end and returns what it printed.
func runIn(t *testing.T, home string, env []string, args ...string) (stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, cutout, args...)
	cmd.Env = append(append(os.Environ(), "CUTOUT_HOME="+home), env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", args, err, out.String(), said.String())
	}
	return out.String(), said.String()
}

// began returns how the home's last sandbox began, from its audit log.
func began(t *testing.T, home string) string {
	t.Helper()
	out, _ := runIn(t, home, nil, "audit", "--json", "latest")
	m := regexp.MustCompile(`"detail":"started ([^"]*)"`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no start in %s", out)
	}
	return m[1]
}

// TestSnapshotHoldsNothing: the snapshot is taken by the very sandbox that then
// uses a secret, and has nothing of it (C12).
func TestSnapshotHoldsNothing(t *testing.T) {
	t.Parallel()
	home := ownSnapshots(t)
	value, variable := newValue(), newValue()
	out, _ := runIn(t, home, []string{"API_KEY=" + value}, append(smallest,
		"--secret", "API_KEY@api.example.test", "-e", "OWN="+variable, "--", "sh", "-c", `
			hostname; hostname -I; echo "$API_KEY $OWN"; cat /usr/local/share/ca-certificates/cutout.crt`)...)
	lines := strings.SplitN(out, "\n", 4)
	if len(lines) != 4 || lines[2] != "$MSB_API_KEY "+variable {
		t.Fatalf("the guest printed %q", out)
	}
	files := snapshots(t, home)
	if len(files) != 1 {
		t.Fatalf("snapshots %v", files)
	}
	state, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	newCanary(value).check(t, "the snapshot", bytes.NewReader(state))
	newCanary(variable).check(t, "the snapshot", bytes.NewReader(state))
	for what, text := range map[string]string{
		"placeholder": "MSB_API_KEY", "variable's name": "API_KEY", "host": "api.example.test",
		"host name": lines[0], "address": strings.Fields(lines[1])[0],
		"authority": strings.TrimSpace(strings.Split(lines[3], "\n")[2]),
	} {
		if len(text) < 7 {
			t.Errorf("%s: %q is too short to search for", what, text)
		}
		if bytes.Contains(state, []byte(text)) {
			t.Errorf("the snapshot has the %s %q", what, text)
		}
		der, _ := base64.StdEncoding.DecodeString(text)
		if what == "authority" && (len(der) < 30 || bytes.Contains(state, der)) {
			t.Errorf("the snapshot has the %s, or %q is none", what, text)
		}
	}
	// That the search finds what is there.
	for _, text := range []string{"Linux version 6", "cutout-agent: ", "/usr/local/share/ca-certificates/cutout.crt"} {
		if !bytes.Contains(state, []byte(text)) {
			t.Errorf("the snapshot does not have %q", text)
		}
	}
}

// TestRestoredDiffer: two sandboxes that begin with one snapshot, at one time,
// share nothing that is to be a sandbox's own (E5).
func TestRestoredDiffer(t *testing.T) {
	t.Parallel()
	needEmulation(t)
	args := []string{"run", "--secret", "API_KEY@api.example.test", "--", "sh", "-c", `
		echo "time: $(date +%s)"
		echo "boot: $(cat /proc/sys/kernel/random/boot_id)"
		echo "random: $(head -c 16 /dev/urandom | base64)"
		echo "uuid: $(cat /proc/sys/kernel/random/uuid)"
		echo "name: $(hostname)"
		echo "addresses: $(hostname -I)"
		echo "resolver: $(cat /etc/resolv.conf | tr '\n' ' ')"
		echo "authority: $(base64 -w0 </usr/local/share/ca-certificates/cutout.crt)"
		echo "stack: $(grep stack /proc/self/maps | cut -d- -f1)"
		echo "python: $(python3 -c 'import random, uuid, secrets; print(random.random(), uuid.uuid4(), secrets.token_hex())')"
		echo; read wait`}
	runIn(t, ownHome(t), []string{"API_KEY=" + newValue()}, args[:4]...) // there is a snapshot now
	var all [2]map[string]string
	var boxes [2]*box
	for i := range boxes {
		boxes[i] = start(t, []string{"API_KEY=" + newValue()}, args...)
	}
	for i, b := range boxes {
		b.waitLine("")
		client := b.client()
		info, err := client.Info(t.Context())
		client.Close()
		if err != nil || !info.Restored {
			t.Errorf("sandbox %d: %+v, %v: it did not begin with a snapshot", i, info, err)
		}
		all[i] = map[string]string{}
		for line := range strings.Lines(b.stdout.String()) {
			if what, text, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
				all[i][what] = text
			}
		}
		sec, _ := strconv.ParseInt(all[i]["time"], 10, 64)
		if off := time.Since(time.Unix(sec, 0)); off < -5*time.Second || off > bootLimit {
			t.Errorf("sandbox %d: its clock is off by %v", i, off)
		}
		delete(all[i], "time")
	}
	for _, b := range boxes {
		b.in.Close()
		b.exit()
	}
	if len(all[0]) != 9 {
		t.Errorf("the guest printed %v", all[0])
	}
	for what, one := range all[0] {
		if other := all[1][what]; one == "" || one == other {
			t.Errorf("%s: %q and %q", what, one, other)
		}
	}
}

func ownHome(t *testing.T) string {
	t.Helper()
	home, err := newHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return home
}

// TestChangedSnapshot: a snapshot in which one bit has changed is refused, the
// sandbox boots, and the next has a snapshot again (E12).
func TestChangedSnapshot(t *testing.T) {
	t.Parallel()
	home := ownSnapshots(t)
	run := func(more ...string) (said, how string) {
		out, said := runIn(t, home, nil, append(append(smallest, more...), "--", "echo", "here")...)
		if out != "here\n" {
			t.Fatalf("the guest printed %q", out)
		}
		return said, began(t, home)
	}
	restored := func(how string) bool { return strings.HasSuffix(how, ", from a snapshot") }
	if _, how := run(); restored(how) || len(snapshots(t, home)) != 1 {
		t.Fatalf("the first sandbox: %s, snapshots %v", how, snapshots(t, home))
	}
	if said, how := run(); !restored(how) || strings.Contains(said, "snapshot") {
		t.Errorf("the second sandbox: %s, %s", how, said)
	}
	if _, how := run("--no-snapshot"); restored(how) {
		t.Errorf("with --no-snapshot: %s", how)
	}

	file := snapshots(t, home)[0]
	flip(t, file)
	if said, how := run(); restored(how) || strings.Count(said, "the snapshot is not what was stored; booting") != 1 {
		t.Errorf("with a changed snapshot: %s, %s", how, said)
	}
	if said, how := run(); !restored(how) || strings.Contains(said, "snapshot") {
		t.Errorf("after that: %s, %s", how, said)
	}
	if err := checkClean(home); err != nil {
		t.Error(err)
	}
}

// flip changes a bit in the middle of a file and leaves it as it was otherwise.
func flip(t *testing.T, path string) {
	t.Helper()
	err := os.Chmod(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := f.Chmod(0o400); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotUnusable: what stands in the way of snapshots costs one line.
func TestSnapshotUnusable(t *testing.T) {
	t.Parallel()
	home := ownSnapshots(t)
	if err := os.WriteFile(filepath.Join(home, "snapshots"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, said := runIn(t, home, nil, append(smallest, "--", "echo", "here")...)
	if out != "here\n" || strings.Count(said, "; booting") != 1 || !strings.Contains(said, "not a directory") {
		t.Errorf("%q, %q", out, said)
	}
}
