package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/testnet"
	"github.com/cutoutdev/cutout/internal/testnet/talk"
)

// TestAPIs: what people call with a credential works from a guest that has
// none, and the servers get every byte: git over HTTPS, an upload of a fixed
// length whose body has a placeholder, a chat that is streamed, gRPC.
func TestAPIs(t *testing.T) {
	t.Parallel()
	value := newValue()
	ca, err := testnet.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	caFile, client := filepath.Join(dir, "ca.pem"), buildTalk(t, dir)
	if err := ca.WriteFile(caFile); err != nil {
		t.Fatal(err)
	}
	git, err := testnet.GitServer(dir, "repo", "me", value)
	if err != nil {
		t.Fatal(err)
	}
	chat := &chat{acked: make(chan int)}
	api := http.NewServeMux()
	api.Handle("/repo.git/", git)
	api.HandleFunc("PUT /bucket/object", storeObject)
	api.HandleFunc("POST /v1/chat/completions", chat.complete)
	api.HandleFunc("POST /acknowledge/{n}", chat.acknowledge)
	cert, err := ca.Cert("api.example.test", "grpc.example.test")
	if err != nil {
		t.Fatal(err)
	}
	u, err := testnet.StartUpstream(testnet.UpstreamConfig{Cert: &cert, Handler: api})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	talks, err := talk.Start(cert)
	if err != nil {
		t.Fatal(err)
	}
	defer talks.Close()

	size := objectSize()
	b := start(t, []string{"API_KEY=" + value}, "run", "-m", "1g",
		"--secret", "API_KEY@api.example.test,grpc.example.test", "--surface", "API_KEY=header,basic,body:text/plain",
		"--connect-to", "api.example.test:443="+u.Addr().String(),
		"--connect-to", "grpc.example.test:443="+talks.Addr().String(),
		"--tls-upstream-ca-cert", caFile, "--copy", client+":/bin/talk", "--copy", "testdata/api/:/api",
		"-e", "SIZE="+strconv.Itoa(size), "--", "sh", "/api/all.sh")
	said := map[string]string{}
	for b.out.Scan() {
		name, text, _ := strings.Cut(b.out.Text(), ": ")
		said[name] = text
	}
	if code := b.exit(); code != 0 {
		t.Fatalf("exit status %d\n%s%s", code, b.stdout.String(), b.stderr.String())
	}
	if strings.Contains(b.stdout.String()+b.stderr.String(), value) {
		t.Error("the guest reads the value")
	}
	t.Log(b.stdout.String())

	t.Run("git push", func(t *testing.T) {
		for _, rev := range []string{"first", "second"} {
			out, err := exec.Command("git", "-C", filepath.Join(dir, "repo.git"), "cat-file", "blob", rev+":data").Output()
			if sum := sha256.Sum256(out); err != nil || hex.EncodeToString(sum[:]) != said["git "+rev] {
				t.Errorf("%s: %d bytes, %x, the guest pushed %s: %v", rev, len(out), sum, said["git "+rev], err)
			}
		}
	})
	t.Run("upload", func(t *testing.T) {
		length, sum := object(size, value)
		if want := fmt.Sprintf("%d %s", length, sum); said["stored"] != want {
			t.Errorf("the server stored %s, want %s", said["stored"], want)
		}
		if _, inert := object(size, "$MSB_API_KEY"); said["sent"] != inert {
			t.Errorf("the guest sent %s, want %s", said["sent"], inert)
		}
	})
	t.Run("chat", func(t *testing.T) {
		if said["chat"] != fmt.Sprintf("%d events, Bearer $MSB_API_KEY", events) {
			t.Errorf("the guest read %q", said["chat"])
		}
		if chat.credential != "Bearer "+value || chat.prompt != "say $MSB_API_KEY" {
			t.Errorf("the server got %q and %q", chat.credential, chat.prompt)
		}
	})
	t.Run("gRPC", func(t *testing.T) {
		var report talk.Report
		if err := json.Unmarshal([]byte(said["gRPC"]), &report); err != nil {
			t.Fatal(err)
		}
		want := talk.Session{Credential: "Bearer " + value, Messages: report.Messages, SHA256: report.SHA256}
		select {
		case got := <-talks.Sessions:
			if d := cmp.Diff(want, got); d != "" || got.Messages < 5 {
				t.Errorf("the server got (-want +got):\n%s", d)
			}
		default:
			t.Error("the server got no stream")
		}
		if report.Status != "OutOfRange: the credential was Bearer $MSB_API_KEY" || report.Refused != "PermissionDenied" {
			t.Errorf("the client says %+v", report)
		}
	})
}

// buildTalk builds the gRPC client, without the C library of this machine.
func buildTalk(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "talk")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./testdata/talk")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the gRPC client: %v\n%s", err, out)
	}
	return path
}

// objectSize is about how long the uploaded object is: longer than what is
// held in memory. make test-long has 200 MB of it.
func objectSize() int {
	if os.Getenv("CUTOUT_TEST_LONG") != "" {
		return 200_000_000
	}
	return 20_000_000
}

// object is what all.sh uploads, with key in its beginning, middle and end.
func object(size int, key string) (length int64, sum string) {
	h := sha256.New()
	half := bytes.Repeat([]byte(strings.Repeat("0123456789abcde\n", 1<<10)), size/2>>14+1)[:size/2]
	n := 0
	for _, part := range [][]byte{[]byte(key), half, []byte(key), half, []byte(key)} {
		h.Write(part)
		n += len(part)
	}
	return int64(n), hex.EncodeToString(h.Sum(nil))
}

// storeObject takes objects of known length only, as S3 does.
func storeObject(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength < 0 {
		w.WriteHeader(http.StatusLengthRequired)
		return
	}
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil || n != r.ContentLength {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprintf(w, "%d %x\n", n, h.Sum(nil))
}

// A chat answers with events, each of which the guest must acknowledge before
// the next is made.
type chat struct {
	acked              chan int
	credential, prompt string
}

const events = 12

// patience is how long an event may wait for its acknowledgement.
const patience = 2 * time.Minute

func (c *chat) complete(w http.ResponseWriter, r *http.Request) {
	var question struct {
		Messages []struct{ Content string }
		Stream   bool
	}
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil || !question.Stream || len(question.Messages) != 1 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.credential, c.prompt = r.Header.Get("Authorization"), question.Messages[0].Content
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	for n := range events {
		delta, _ := json.Marshal(map[string]any{"n": n, "content": c.credential})
		fmt.Fprintf(w, "data: %s\n\n", delta)
		http.NewResponseController(w).Flush()
		select {
		case got := <-c.acked:
			if got != n {
				panic(http.ErrAbortHandler)
			}
		case <-ctx.Done():
			panic(http.ErrAbortHandler)
		}
	}
	io.WriteString(w, "data: [DONE]\n\n")
}

func (c *chat) acknowledge(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	select {
	case c.acked <- n:
	case <-r.Context().Done():
	}
}
