package secret

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// TestCopies counts the copies of a value in the readable memory of a
// process that has written it upstream a thousand times. The process is this
// test's own binary again; it gets the value over a pipe, as the keeper does.
//
// The control row, in which net/http is given the value itself, shows that
// the scan finds copies. Without clobberfree nothing erases what crypto/tls
// leaves in a record buffer that a write outgrows, so no write must outgrow
// one ([TestRecordBuffers]); two requests, in which the value stands twice, are
// allowed for goroutines that were moved to another processor meanwhile.
func TestCopies(t *testing.T) {
	tests := []struct {
		protocol, how, godebug string
		most                   int // copies allowed; -1: at least ten expected
	}{
		{"h1", "sealed", "clobberfree=1", 0},
		{"h2", "sealed", "clobberfree=1", 0},
		{"h1", "sealed", "", 4},
		{"h2", "sealed", "", 4},
		{"h1", "control", "", -1},
		{"h2", "control", "", -1},
	}
	for _, tt := range tests {
		t.Run(strings.Join([]string{tt.protocol, tt.how, tt.godebug}, " "), func(t *testing.T) {
			if raceBuild && tt.godebug == "" && tt.how == "sealed" {
				t.Skip("the race detector makes sync.Pool drop record buffers at random, and each new one may leave a copy")
			}
			value := rand.Text() + rand.Text()
			right := 0
			var mu sync.Mutex
			u := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if user, pass, _ := r.BasicAuth(); user == "user" && pass == value && r.Header.Get("X-Api-Key") == value {
					right++
				}
			})
			p := startCopies(t, u.Listener.Addr().String(), u.Certificate(), value, tt.protocol, tt.how, tt.godebug)
			for _, stage := range []string{"open", "closed"} {
				p.until(stage)
				n := countCopies(t, p.pid, value, p.skip)
				t.Logf("%s: %d copies (region: %s)", stage, n, p.kind)
				if tt.most >= 0 && n > tt.most {
					t.Errorf("%s: %d copies outside the region, want at most %d", stage, n, tt.most)
				}
				if tt.most < 0 && stage == "open" && n < 10 {
					t.Errorf("the scan finds only %d copies of a value that net/http was given", n)
				}
				p.next()
			}
			if right != copiesRequests {
				t.Errorf("upstream got %d right requests of %d", right, copiesRequests)
			}
		})
	}
}

const (
	copiesRequests = 1000
	copiesConns    = 16
)

// raceBuild is set in a test built with the race detector.
var raceBuild bool

// copiesProcess is the scanned process.
type copiesProcess struct {
	t    *testing.T
	pid  int
	out  *bufio.Reader
	in   io.Writer
	kind string
	skip [2]uint64 // addresses of the region
}

func startCopies(t *testing.T, addr string, ca *x509.Certificate, value, protocol, how, godebug string) *copiesProcess {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestCopiesProcess$")
	cmd.Env = []string{"COPIES=" + strings.Join([]string{addr, protocol, how, strconv.Itoa(len(value)), base64.StdEncoding.EncodeToString(ca.Raw)}, " "), "GODEBUG=" + godebug}
	cmd.ExtraFiles = []*os.File{r}
	cmd.Stderr = os.Stderr
	out, err1 := cmd.StdoutPipe()
	in, err2 := cmd.StdinPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	r.Close()
	io.WriteString(w, value)
	w.Close()
	return &copiesProcess{t: t, pid: cmd.Process.Pid, out: bufio.NewReader(out), in: in}
}

// until reads what the process says until it has reached stage.
func (p *copiesProcess) until(stage string) {
	p.t.Helper()
	for {
		line, err := p.out.ReadString('\n')
		if err != nil {
			p.t.Fatalf("process ended before %q: %v", stage, err)
		}
		if n, _ := fmt.Sscanf(line, "region %s %x %x", &p.kind, &p.skip[0], &p.skip[1]); n == 3 {
			continue
		}
		if line == stage+"\n" {
			return
		}
		p.t.Logf("process: %s", line)
	}
}

func (p *copiesProcess) next() { io.WriteString(p.in, "\n") }

// countCopies counts value in every form in the readable maps of a process.
func countCopies(t *testing.T, pid int, value string, skip [2]uint64) int {
	t.Helper()
	forms := [][]byte{[]byte(value), hpack.AppendHuffmanString(nil, value)}
	for shift := range 3 {
		from, to := Form{shift: shift}.core(len(value))
		s := base64.StdEncoding.EncodeToString([]byte("xx"[:shift] + value + "zz"))
		forms = append(forms, []byte(s[from:to]))
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Skipf("memory of a child cannot be read here: %v", err)
	}
	defer mem.Close()
	count, read := 0, 0
	for line := range strings.Lines(string(maps)) {
		var a, b uint64
		var perm string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &a, &b, &perm); n != 3 || perm[0] != 'r' || a >= skip[0] && b <= skip[1] {
			continue
		}
		buf := make([]byte, b-a)
		n, _ := mem.ReadAt(buf, int64(a))
		read += n
		for _, f := range forms {
			count += bytes.Count(buf[:n], f)
		}
	}
	if read < 1<<20 {
		t.Fatalf("only %d bytes could be read", read)
	}
	return count
}

// TestCopiesProcess is the scanned process, not a test of its own.
func TestCopiesProcess(t *testing.T) {
	args := strings.Fields(os.Getenv("COPIES"))
	if len(args) != 5 {
		t.Skip("runs only within TestCopies")
	}
	n, _ := strconv.Atoi(args[3])
	st := newStore(t)
	v, err := st.ReadValue(3, n)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := base64.StdEncoding.DecodeString(args[4])
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	at := uint64(uintptrOfBytes(st.mem.bytes))
	fmt.Printf("region %s %x %x\n", st.Kind(), at, at+uint64(len(st.mem.bytes)))
	// The table search is part of what may leave copies.
	needles, err := NewNeedles([]*Secret{{Value: v}})
	if err != nil {
		t.Fatal(err)
	}
	conns := copiesLoad(t, args[0], &tls.Config{RootCAs: roots, ServerName: "example.com"}, args[1] == "h2", args[2] == "sealed", st, v)
	settle := func(stage string) {
		for range 3 {
			runtime.GC()
		}
		fmt.Println(stage)
		os.Stdin.Read(make([]byte, 1))
	}
	settle("open")
	for _, c := range conns {
		c.Close()
	}
	runtime.KeepAlive(needles)
	settle("closed")
}

// copiesLoad sends the requests over copiesConns connections.
func copiesLoad(t *testing.T, addr string, cfg *tls.Config, http2, sealed bool, st *Store, v Value) []*http.ClientConn {
	conns := make([]*http.ClientConn, copiesConns)
	var wg sync.WaitGroup
	left := make(chan int, copiesRequests)
	for i := range copiesRequests {
		left <- i
	}
	close(left)
	for i := range conns {
		wg.Go(func() {
			var seal *Seal
			for range left {
				for {
					var err error
					if seal == nil || seal.gone() {
						if conns[i], seal, err = dial(addr, cfg, http2, st); err != nil {
							t.Error(err)
							return
						}
					}
					if err = copiesSend(conns[i], seal, addr, sealed, v); err == nil {
						break
					}
					if !seal.gone() {
						t.Error(err, seal.cause())
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return conns
}

func copiesSend(cc *http.ClientConn, seal *Seal, addr string, sealed bool, v Value) error {
	key, basic := "", ""
	if sealed {
		var err1, err2 error
		key, err1 = seal.Register([]Part{{Value: v}}, Raw)
		basic, err2 = seal.Register([]Part{{Text: "user:"}, {Value: v}}, Base64)
		if err1 != nil || err2 != nil {
			return errors.Join(err1, err2)
		}
		defer seal.Forget(key)
		defer seal.Forget(basic)
	} else {
		key = reveal(v)
		basic = base64.StdEncoding.EncodeToString([]byte("user:" + key))
	}
	req, err := http.NewRequest("GET", "https://"+addr+"/", nil)
	if err != nil {
		return err
	}
	req.Header = http.Header{"Authorization": {"Basic " + basic}, "X-Api-Key": {key}}
	resp, err := cc.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
