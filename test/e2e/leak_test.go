package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// TestLeakCanary: while and after a guest has used a value and called a
// server that echoes the whole request, the value is in no place but the
// server, in no form.
func TestLeakCanary(t *testing.T) {
	t.Parallel()
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := w.ca.WriteFile(ca); err != nil {
		t.Fatal(err)
	}
	value := newValue()
	b := start(t, []string{"API_KEY=" + value}, "run", "-m", "256m",
		"--secret", "API_KEY@api.example.test",
		"--connect-to", "api.example.test:443="+w.upstreams["API"].Addr().String(),
		"--tls-upstream-ca-cert", ca,
		"--", "sh", "-c", `
			h="Authorization: Bearer $API_KEY"
			for path in echo echo.json echo/headers echo/cookie echo/location echo/status echo/trailer echo/early; do
				curl -sS -i -H "$h" https://api.example.test/$path
				curl -sS -i --http1.1 -u "me:$API_KEY" https://api.example.test/$path
			done
			env > /tmp/env
			echo; echo done; sleep 1000`)
	b.waitLine("done")
	c := newCanary(value)

	// That the search finds what is there, and that the guest had something.
	served := ""
	for _, r := range w.upstreams["API"].Requests() {
		served += r.Text()
	}
	if n := strings.Count(served, "Bearer "+value); n != 8 {
		t.Errorf("the server received the value %d times, want 8", n)
	}
	if c.search(strings.NewReader(served)) == "" {
		t.Error("the search does not find the value where it is")
	}

	t.Run("output", func(t *testing.T) {
		c.check(t, "stdout", bytes.NewReader(b.stdout.Bytes()))
		if !bytes.Contains(b.stdout.Bytes(), []byte("Bearer $MSB_API_KEY")) {
			t.Error("the echo is not in the output")
		}
	})
	t.Run("memory", func(t *testing.T) { checkMemory(t, c, b) })
	t.Run("processes", func(t *testing.T) { checkProcesses(t, c, b) })
	t.Run("files meanwhile", func(t *testing.T) { checkFiles(t, c, b.home) })
	b.cmd.Process.Signal(os.Interrupt)
	b.in.Close()
	b.exit()
	t.Run("files", func(t *testing.T) {
		c.check(t, "stderr", bytes.NewReader(b.stderr.Bytes()))
		checkFiles(t, c, b.home)
		checkFiles(t, c, sharedHome)
	})
}

// checkMemory searches all of the guest's memory.
func checkMemory(t *testing.T, c *canary, b *box) {
	f, err := os.CreateTemp(t.TempDir(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	client := b.client()
	defer client.Close()
	if err := client.DumpMemory(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	if info, _ := f.Stat(); info.Size() < 200<<20 {
		t.Errorf("the dump has only %d bytes", info.Size())
	}
	placeholder := &canary{map[string][]byte{"placeholder": []byte("$MSB_API_KEY")}}
	if placeholder.search(io.NewSectionReader(f, 0, 1<<40)) == "" {
		t.Error("not even the placeholder is in the dump")
	}
	c.check(t, "the guest's memory", io.NewSectionReader(f, 0, 1<<40))
}

func checkFiles(t *testing.T, c *canary, dir string) {
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		files++
		c.check(t, path, f)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if files == 0 {
		t.Errorf("%s has no files to search", dir)
	}
}

// A canary is a value in the forms in which it could turn up.
type canary struct{ forms map[string][]byte }

func newCanary(value string) *canary {
	c := &canary{map[string][]byte{
		"raw": []byte(value),
		"hex": []byte(hex.EncodeToString([]byte(value))),
		"HEX": []byte(strings.ToUpper(hex.EncodeToString([]byte(value)))),
	}}
	for shift := range 3 {
		text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + value))
		// without the characters that neighbours change
		c.forms[fmt.Sprintf("base64+%d", shift)] = []byte(text[(shift*8+5)/6 : (shift+len(value))*8/6])
	}
	var little, big []byte
	for _, u := range utf16.Encode([]rune(value)) {
		little = append(little, byte(u), byte(u>>8))
		big = append(big, byte(u>>8), byte(u))
	}
	c.forms["UTF-16LE"], c.forms["UTF-16BE"] = little, big
	return c
}

// search returns the name of the form that r holds, "" for none.
func (c *canary) search(r io.Reader) string {
	const keep = 256 // more than any form
	buf := make([]byte, 0, 1<<20)
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		for name, form := range c.forms {
			if bytes.Contains(buf, form) {
				return name
			}
		}
		if err != nil {
			return ""
		}
		buf = append(buf[:0], buf[len(buf)-keep:]...)
	}
}

func (c *canary) check(t *testing.T, where string, r io.Reader) {
	t.Helper()
	if form := c.search(r); form != "" {
		t.Errorf("the value is in %s (%s)", where, form)
	}
}
