package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/testnet"
)

// clockScript has a boundary in the machine, and the time of day jump under it.
const clockScript = `
export API_KEY=$1 CUTOUT_HOME=/tmp/home
python3 /t/server.py "$API_KEY" 2>/dev/null &
/t/cutout boundary -q --listen 8090 --env-file /tmp/env --secret API_KEY@api.example.test \
	--connect-to api.example.test:443=127.0.0.1:8443 --tls-upstream-ca-cert /t/ca.pem --ca-file /tmp/ca.pem &
boundary=$!
until [ -s /tmp/env ] && curl -sk -o /dev/null https://127.0.0.1:8443/; do sleep 0.1; done
ask() { echo "$1: $(env $(cat /tmp/env) sh -c 'curl -sS --max-time 20 -H "Authorization: Bearer $API_KEY" https://api.example.test/' 2>&1 | head -c 300)"; }
began=$(date +%s)
ask now
date -s @$((began + 3*86400)) >/dev/null
ask later
date -s @$((began - 12*3600)) >/dev/null
ask before
date -s @$((began + 60)) >/dev/null
ask again
kill $boundary
wait $boundary
/t/cutout audit latest
/t/cutout audit verify latest
`

// clockServer answers whether it got the value.
const clockServer = `
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = b"right" if self.headers["Authorization"] == "Bearer " + sys.argv[1] else b"wrong"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
s = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
c.load_cert_chain("/t/server.pem")
s.socket = c.wrap_socket(s.socket, server_side=True)
s.serve_forever()
`

// TestClockJump is ATTACKS E4: the time of day jumps under a boundary that is at
// work. Values go where they went; a server whose certificate is not valid yet
// by that time gets none; and the log still verifies.
func TestClockJump(t *testing.T) {
	t.Parallel()
	ca, err := testnet.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Cert("api.example.test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := ca.WriteFile(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"server.pem": string(both), "server.py": clockServer, "jump.sh": clockScript} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", cutout, filepath.Join(dir, "cutout")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	value := newValue()
	cmd := exec.Command(cutout, "run", "--no-net", "-m", "512m", "-v", dir+":/t:ro", "--timeout", "3m", "--", "sh", "/t/jump.sh", value)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"now: right\n", "later: right\n", `"reason":"upstream_unverified"`, "again: right\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing", strings.TrimSpace(want))
		}
	}
	if n := strings.Count(string(out), "substituted API_KEY"); n != 3 {
		t.Errorf("%d values went out, says the log", n)
	}
	if !strings.Contains(string(out), "the chain holds") || strings.Contains(string(out), "the end is missing") {
		t.Error("the log does not verify")
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
