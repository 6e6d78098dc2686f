//go:build linux

package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/testnet"
)

// used is what the guest of TestPrograms runs. Every line that it prints
// begins with the name of a program.
const used = `
told() {
	local name="$1" begin="$(date +%s%N)"
	shift
	"$@" 2>&1 </dev/null | sed "s/^/$name: /"
	echo "$name took $((($(date +%s%N) - begin) / 1000000)) ms"
}
banner() {
	(umask 077; echo "$SSH_KEY" > /root/key)
	echo typed | ssh -i /root/key -o StrictHostKeyChecking=no -o LogLevel=error -o GSSAPIAuthentication=no root@ssh.example.test
}
upload() {
	head -c 3000000 /dev/zero | nc -N files.example.test 2121
}
packages() {
	echo 'deb [trusted=yes] http://apt.example.test/ ./' > /etc/apt/sources.list
	rm -rf /etc/apt/sources.list.d/*
	apt-get -q update && apt-cache policy cutout-greeting
	apt-get -q -y install cutout-greeting && cutout-greeting
}
wheels() {
	python3 -m pip -q --no-cache-dir --disable-pip-version-check --no-input install --no-deps --no-compile --root-user-action ignore \
		--target /tmp/site --index-url "https://me:$TOKEN@pypi.example.test/simple/" greeting && PYTHONPATH=/tmp/site python3 -c 'import greeting; print(greeting.text)'
}
tarballs() {
	curl -sS -H "Authorization: Bearer $TOKEN" https://npm.example.test/greeting -o about
	curl -sS --compressed -H "Authorization: Bearer $TOKEN" "$(sed 's/.*"tarball":"\([^"]*\)".*/\1/' about)" -o got.tgz
	echo "$(sed 's/.*"sha512":"\([^"]*\)".*/\1/' about)  got.tgz" | sha512sum -c
}
web() {
	mkdir /srv/web && head -c 2000000 /dev/zero > /srv/web/file
	echo 'events {} http { access_log off; server { listen 80; root /srv/web; } }' > /etc/nginx/nginx.conf
	nginx 2>/dev/null && echo started
}
cd /root
told nginx web
told dig dig +short a.example.test
told dig-tcp dig +short +tcp @9.9.9.9 a.example.test AAAA
told dig-none dig nowhere.example.test
told dig-beyond echo "IPv6:" $(dig +short beyond.example.test AAAA) "IPv4:" $(dig +short beyond.example.test)
told ping ping -n -c 2 -i 0.2 -W 20 a.example.test
told ping6 ping -6 -n -c 2 -i 0.2 -W 20 a.example.test
told ping-large ping -n -c 1 -W 20 -s 20000 a.example.test
told iperf-up iperf3 -c a.example.test -n 16M -f m
told iperf-down iperf3 -R -6 -c a.example.test -n 16M -f m
told ssh banner
told nc upload
told apt packages
told npm tarballs
told pip wheels
echo done
cat
`

// TestPrograms: the programs that people use work from a real machine, with
// real servers at public addresses: nothing here plays either of them.
func TestPrograms(t *testing.T) {
	if os.Getenv("CUTOUT_TEST_LONG") == "" {
		t.Skip("takes a minute; make test-long runs it")
	}
	needRoot(t, "sshd", "iperf3", "nginx", "ip", "nsenter")
	home, image := programsHome(t)
	n := newInternet(t, "a.example.test", "ssh.example.test", "files.example.test", "apt.example.test", "pypi.example.test", "npm.example.test")
	ca, err := testnet.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(t.TempDir(), "ca.pem")
	if err := ca.WriteFile(roots); err != nil {
		t.Fatal(err)
	}
	value := newValue()
	n.serve(5201, "iperf3", "-s")
	key := n.serveShell()
	n.serveApt()
	n.serveUploads()
	n.serveIndexes(ca, value)

	cmd := n.host.Command(cutout, "run", "-p", "18080:80", "--dns-nameserver", n.dns.Addr().String(),
		"--secret", "TOKEN@pypi.example.test,npm.example.test", "--tls-upstream-ca-cert", roots, "-e", "SSH_KEY="+key, image, "--", "bash", "-c", used)
	cmd.Env = append(os.Environ(), "CUTOUT_HOME="+home, "TOKEN="+value)
	b := follow(t, home, cmd)
	b.waitLine("done")
	web := n.run(n.host, "curl", "-sS", "http://127.0.0.1:18080/file")
	b.in.Close()
	if code := b.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	said := b.stdout.String()
	wants := map[string]string{
		"a published nginx":   `^nginx: started$`,
		"dig, UDP":            `^dig: 93\.184\.216\.34$`,
		"dig, TCP, IPv6":      `^dig-tcp: 2606:2800:220:1::34$`,
		"dig of no name":      `^dig-none: .*status: NXDOMAIN`,
		"a family lacking":    `^dig-beyond: IPv6: IPv4: 93\.184\.216\.34$`,
		"ping":                `^ping: 2 packets transmitted, 2 received, 0% packet loss`,
		"ping, IPv6":          `^ping6: 2 packets transmitted, 2 received, 0% packet loss`,
		"ping, large":         `^ping-large: 20008 bytes from 93\.184\.216\.34`,
		"iperf3":              `^iperf-up: .* 16\.\d MBytes .* sender$`,
		"iperf3 -R, IPv6":     `^iperf-down: .* 16\.\d MBytes .* receiver$`,
		"ssh":                 `^ssh: typed$`,
		"an end of one side":  fmt.Sprintf(`^nc: 226 3000000 %x <nil>$`, sha256.Sum256(make([]byte, 3_000_000))),
		"apt-get update":      `^apt:  +1\.0 500$`,
		"a download of npm's": `^npm: got\.tgz: OK$`,
		"apt-get install":     `^apt: hello from a package$`,
		"pip install":         `^pip: hello from a wheel$`,
	}
	for what, want := range wants {
		if !regexp.MustCompile(`(?m)` + want).MatchString(said) {
			t.Errorf("%s: nothing like %s", what, want)
		}
	}
	if len(web) != 2_000_000 || strings.Trim(web, "\x00") != "" {
		t.Errorf("the published nginx gave %d bytes", len(web))
	}
	if strings.Contains(said, value) {
		t.Error("the guest reads the value")
	}
	if t.Failed() {
		t.Logf("the guest said\n%s%s", said, b.stderr.String())
	}
	for _, line := range regexp.MustCompile(`(?m)^\S+ took \d+ ms$|^iperf-.*receiver$`).FindAllString(said, -1) {
		t.Log(line)
	}
}

// needRoot ends the test where it cannot be: in CI as a failure, elsewhere as
// a skip that says what to do.
func needRoot(t *testing.T, programs ...string) {
	t.Helper()
	lack := t.Skipf
	if os.Getenv("CI") == "true" {
		lack = t.Fatalf
	}
	if os.Getuid() != 0 {
		lack("needs root, to make network namespaces")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			lack("needs %s: make test-long as root installs it", p)
		}
	}
}
