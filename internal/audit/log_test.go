package audit

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cutoutdev/cutout/internal/policy"
)

func TestChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var told []Event
	l, err := Create(path, Config{Notify: func(e Event) { told = append(told, e) }})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if err := l.Append(Event{Event: Refused, Reason: policy.NotPinned, Host: "a\x1b[31m.test\n"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(told) != 200 {
		t.Errorf("%d events told, want 200", len(told))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsRune(data, 0x1b) {
		t.Error("an escape sequence of the guest stands raw in the log")
	}
	if got := verify(t, data, l.key); got != l.Head() {
		t.Errorf("chain ends in %s, the log says %s", got, l.Head())
	}
	cut := bytes.Replace(data, []byte("not_pinned"), []byte("plain_http"), 1)
	if got := verify(t, cut, l.key); got == l.Head() {
		t.Error("a changed line is not noticed")
	}
}

// verify computes the chain anew from the lines' bytes.
func verify(t *testing.T, data []byte, key [32]byte) string {
	t.Helper()
	var head [sha256.Size]byte
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		var e map[string]any
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			t.Fatalf("line %q: %v", sc.Text(), err)
		}
		body, _, ok := strings.Cut(sc.Text(), `,"chain":"`)
		if !ok {
			t.Fatalf("line %q has no chain", sc.Text())
		}
		mac := hmac.New(sha256.New, key[:])
		mac.Write(head[:])
		mac.Write([]byte(body + "}"))
		mac.Sum(head[:0])
	}
	return hex.EncodeToString(head[:])
}

func TestFailureIsFinal(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full on this system")
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{file: f}
	if l.Append(Event{Event: Lifecycle}) == nil || l.Failed() == nil {
		t.Fatal("a full disk was not noticed")
	}
	l.file, _ = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if l.Append(Event{Event: Lifecycle}) == nil {
		t.Error("the log went on after a lost line")
	}
}

func TestCreateDoesNotOverwrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := Create(path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := l.Append(Event{}); err == nil {
		t.Error("append after close")
	}
	if _, err := Create(path, Config{}); err == nil {
		t.Error("an existing log was opened anew")
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}
