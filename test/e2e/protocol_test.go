package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// protocols is what the guest of TestProtocols does. Ports of this machine are
// in BANNER, UPLOAD and DOWNLOAD.
const protocols = `
import hashlib, os, socket, struct

def dial(name):
    return socket.create_connection(("host.cutout.internal", int(os.environ[name])), 60)

def told(what, f):
    try:
        print(what + ":", f(), flush=True)
    except Exception as e:
        print(what + ":", type(e).__name__, flush=True)

def banner():
    with dial("BANNER") as s:
        said = s.makefile().readline().strip()
        s.sendall(b"hello\n")
        return said, s.makefile().readline().strip()

def upload():
    with dial("UPLOAD") as s:
        s.sendall(b"u" * (4 << 20))
        s.shutdown(socket.SHUT_WR)
        return s.makefile().read()

def download():
    h, n = hashlib.sha256(), 0
    with dial("DOWNLOAD") as s:
        while b := s.recv(1 << 20):
            h.update(b)
            n += len(b)
    return n, h.hexdigest()

QUESTION = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x03api\x07example\x04test\x00\x00\x01\x00\x01"

def answer(b):
    return b[:2] == QUESTION[:2], b[3] & 15, struct.unpack(">H", b[6:8])[0], socket.inet_ntoa(b[-4:])

def dig():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(60)
        s.connect(("9.9.9.9", 53))
        s.send(QUESTION)
        return answer(s.recv(512))

def digTCP():
    with socket.create_connection(("2620:fe::fe", 53), 60) as s:
        s.sendall(struct.pack(">H", len(QUESTION)) + QUESTION)
        r = s.makefile("rb")
        return answer(r.read(struct.unpack(">H", r.read(2))[0]))

told("server first", banner)
told("half-close", upload)
told("download", download)
told("dig", dig)
told("dig +tcp", digTCP)
`

// TestProtocols: what programs other than web clients do works from a real
// machine: a server that speaks first, an upload that ends in a half-close, a
// large download, questions to resolvers by UDP and TCP.
func TestProtocols(t *testing.T) {
	t.Parallel()
	large := []byte(strings.Repeat("0123456789abcdef", 1<<20))
	port := map[string]int{}
	for name, serve := range map[string]func(net.Conn){
		"BANNER": func(c net.Conn) {
			io.WriteString(c, "SSH-2.0-test\r\n")
			io.Copy(c, c)
		},
		"UPLOAD": func(c net.Conn) {
			n, err := io.Copy(io.Discard, c)
			fmt.Fprintln(c, "226", n, err)
		},
		"DOWNLOAD": func(c net.Conn) { c.Write(large) },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port[name] = l.Addr().(*net.TCPAddr).Port
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); serve(c) }()
			}
		}()
	}
	args := []string{"run", "--net-rule", "allow@host.cutout.internal:tcp:1024-65535", "--connect-to", "api.example.test:443=127.0.0.1:1"}
	for name, p := range port {
		args = append(args, "-e", fmt.Sprintf("%s=%d", name, p))
	}
	b := start(t, nil, append(args, "--", "python3", "-c", protocols)...)
	if code := b.exit(); code != 0 {
		t.Fatalf("exit status %d, said %q", code, b.stderr.String())
	}
	sum := sha256.Sum256(large)
	for _, want := range []string{
		"server first: ('SSH-2.0-test', 'hello')\n",
		"half-close: 226 4194304 <nil>\n",
		fmt.Sprintf("download: (%d, '%s')\n", len(large), hex.EncodeToString(sum[:])),
		"dig: (True, 0, 1, '198.18.0.1')\n",
		"dig +tcp: (True, 0, 1, '198.18.0.1')\n",
	} {
		if !strings.Contains(b.stdout.String(), want) {
			t.Errorf("the guest did not say %q but\n%s", want, b.stdout.String())
		}
	}
}
