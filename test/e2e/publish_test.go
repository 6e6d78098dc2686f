package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// served is what the guest of TestPublish runs: a web server with a large
// file, and an echo for datagrams.
const served = `
head -c 16777216 /dev/urandom > /srv/large
cd /srv && echo small > small
python3 -m http.server --protocol HTTP/1.1 80 >/dev/null 2>&1 &
python3 -c 'import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 53))
while True:
    b, peer = s.recvfrom(65535)
    s.sendto(b"heard " + b, peer)' &
until python3 -c 'import socket; socket.create_connection(("127.0.0.1", 80))' 2>/dev/null; do sleep 0.2; done
sha256sum < large | cut -d" " -f1
echo ready
cat
`

// TestPublish: peers on this machine reach a web server and an echo in the
// guest; a port on which nobody listens, and one that a rule closes, reset
// them; and when the sandbox has ended nothing listens any more.
func TestPublish(t *testing.T) {
	t.Parallel()
	b := start(t, nil, "run", "-p", "0:80", "-p", "[::1]::80", "-p", "0:53/udp", "-p", "0:81", "-p", "0:82",
		"--net-rule", "deny:ingress@127.0.0.1:tcp:82", "--", "sh", "-c", served)
	b.waitLine("ready")
	sum := strings.Fields(b.stdout.String())[0]
	ports := map[string]netip.AddrPort{} // by what is said of the guest's, and the family
	for _, m := range regexp.MustCompile(`published (\S+):(\d+/\w+)`).FindAllStringSubmatch(b.stderr.String(), -1) {
		at := netip.MustParseAddrPort(m[1])
		ports[fmt.Sprint(m[2], at.Addr().Is6())] = at
	}
	if len(ports) != 5 {
		t.Fatalf("said %q", b.stderr.String())
	}
	client := http.Client{Timeout: bootLimit}
	get := func(at netip.AddrPort, path string) []byte {
		t.Helper()
		resp, err := client.Get("http://" + at.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %s, %d bytes, %v", path, resp.Status, len(body), err)
		}
		return body
	}
	for _, at := range []netip.AddrPort{ports["80/tcpfalse"], ports["80/tcptrue"]} {
		if got := get(at, "/small"); string(got) != "small\n" {
			t.Errorf("%s: got %q", at, got)
		}
	}
	begin := time.Now()
	large := get(ports["80/tcpfalse"], "/large")
	if got := sha256.Sum256(large); hex.EncodeToString(got[:]) != sum {
		t.Errorf("%d bytes, not the guest's", len(large))
	}
	t.Logf("%d bytes in %v", len(large), time.Since(begin))

	u, err := net.Dial("udp", ports["53/udpfalse"].String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(u, "you")
	answer := make([]byte, 100)
	if n, err := u.Read(answer); string(answer[:n]) != "heard you" {
		t.Errorf("answer is %q, %v", answer[:n], err)
	}
	live, err := net.Dial("tcp", ports["80/tcpfalse"].String())
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	io.WriteString(live, "GET /small HTTP/1.1\r\nHost: x\r\n\r\n")
	live.Read(answer)
	shown := exec.Command(cutout, "net", "latest")
	shown.Env = b.cmd.Env
	table, err := shown.CombinedOutput()
	for _, want := range []string{
		regexp.QuoteMeta(live.LocalAddr().String()) + ` +` + regexp.QuoteMeta(live.RemoteAddr().String()) + ` +- +spliced +32 B +\d+ B +\d+s +default allow\n`,
		`udp +127.0.0.1:\d+ +127.0.0.1:\d+ +- +spliced +3 B +9 B `,
		`published 127.0.0.1:\d+:81/tcp\n`,
	} {
		if err != nil || !regexp.MustCompile(want).Match(table) {
			t.Errorf("%v: nothing like %q in\n%s", err, want, table)
		}
	}
	for _, port := range []string{"81/tcpfalse", "82/tcpfalse"} {
		if err := knock(ports[port]); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("port %s: %v", port, err)
		}
	}

	// Another sandbox cannot have the port.
	taken := exec.Command(cutout, "run", "-p", fmt.Sprint(ports["80/tcpfalse"].Port())+":80", "--", "true")
	taken.Env = b.cmd.Env
	said, _ := taken.CombinedOutput()
	want := fmt.Sprintf("cutout: publish %s:80/tcp: bind: address already in use\n", ports["80/tcpfalse"])
	if taken.ProcessState.ExitCode() != 125 || !strings.Contains(string(said), want) || !strings.Contains(string(said), "hint: ") {
		t.Errorf("exit status %d, said %q", taken.ProcessState.ExitCode(), said)
	}

	b.in.Close()
	if code := b.exit(); code != 0 {
		t.Errorf("exit status %d, said %q", code, b.stderr.String())
	}
	for what, at := range ports {
		if strings.Contains(what, "tcp") {
			if err := knock(at); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("port %s afterwards: %v", what, err)
			}
		}
	}
	if err := checkClean(b.home); err != nil {
		t.Error(err)
	}
	log, err := exec.Command("sh", "-c", "CUTOUT_HOME='"+b.home+"' "+cutout+" audit").CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		`admitted +from 127.0.0.1 to 127.0.0.1:\d+ - port 80 of the guest, tcp`,
		`admitted +from ::1 to \[::1\]:\d+`,
		`admitted +from 127.0.0.1 to 127.0.0.1:\d+ - udp`,
		`denied +upstream_failed from 127.0.0.1 to 127.0.0.1:\d+ - connect to the guest: connection refused`,
		`denied +rule_denied from 127.0.0.1 to 127.0.0.1:\d+ - port 82 of the guest, tcp`,
	} {
		if !regexp.MustCompile(want).Match(log) {
			t.Errorf("nothing like %q in\n%s", want, log)
		}
	}
}

// knock connects and waits for a byte.
func knock(at netip.AddrPort) error {
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	_, err = c.Read(make([]byte, 1))
	return err
}
