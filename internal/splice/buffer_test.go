package splice

import (
	"bytes"
	"io"
	"testing"
)

// TestBuffers: a large buffer is lent for what fills a small one and given
// back when less comes and when the splice ends; there are never more than
// maxLarge, and without one everything arrives all the same.
func TestBuffers(t *testing.T) {
	var all [maxLarge + 10]buffer
	for i := range all {
		all[i].fit(smallBuffer - 1)
		if all[i].large != nil {
			t.Fatal("a large buffer for little")
		}
		all[i].fit(smallBuffer)
		if got := all[i].large != nil; got != (i < maxLarge) || len(all[i].bytes()) < smallBuffer {
			t.Fatalf("buffer %d is large: %t", i, got)
		}
	}
	if n := lent.Load(); n != maxLarge {
		t.Errorf("%d are lent", n)
	}

	arrives(t)

	for i := range all {
		if i%2 == 0 {
			all[i].fit(smallBuffer)
		} else {
			all[i].shrink()
		}
		if i%2 == 0 && all[i].large != nil && i < maxLarge {
			t.Fatal("a large buffer is kept for little")
		}
	}
	for i := range all {
		all[i].shrink()
	}
	if n := lent.Load(); n != 0 {
		t.Errorf("%d stay lent", n)
	}

	arrives(t)
	if n := lent.Load(); n != 0 {
		t.Errorf("%d stay lent after a splice", n)
	}
}

// arrives sends a megabyte through a splice.
func arrives(t *testing.T) {
	t.Helper()
	client, server, done := joined(t)
	text := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	go func() { client.Write(text); client.CloseWrite() }()
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes of %d arrive: %v", len(got), len(text), err)
	}
	server.Close()
	ended(t, done)
}
