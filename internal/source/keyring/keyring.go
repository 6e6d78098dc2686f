// Package keyring reads values from the user's keyring: the Secret Service of
// the desktop, over D-Bus, or the keychain of macOS.
package keyring

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/cutoutdev/cutout/internal/source"
)

// timeout is long enough to unlock a keyring.
const timeout = 2 * time.Minute

// A Source reads the keyring of the session that this process belongs to.
type Source struct{}

// Read returns the password of ref, SERVICE/USER.
func (*Source) Read(ctx context.Context, ref string) (source.Value, error) {
	at := strings.LastIndexByte(ref, '/')
	if at <= 0 || at == len(ref)-1 {
		return source.Value{}, source.Errorf("write keyring:SERVICE/USER", "the reference names no service and user")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // the library does not know contexts
		text, err := keyring.Get(ref[:at], ref[at+1:])
		got <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		return source.Value{}, source.Errorf("unlock it first", "the keyring does not answer")
	case a := <-got:
		switch {
		case errors.Is(a.err, keyring.ErrNotFound):
			return source.Value{}, source.Errorf("store it first, on Linux with secret-tool store --label=NAME service SERVICE username USER",
				"the keyring has no password of %s for %s", ref[at+1:], ref[:at])
		case a.err != nil:
			return source.Value{}, source.Errorf("is there a desktop session, with an unlocked keyring?", "ask the keyring: %v", a.err)
		}
		b, err := source.Hold([]byte(a.text))
		return source.Value{Data: b}, err
	}
}
