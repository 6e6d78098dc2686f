package testnet

import (
	"io"
	"os"

	"github.com/cutoutdev/cutout/internal/secret"
)

// Value puts text into store, through a pipe as the source of a secret does.
func Value(store *secret.Store, text string) (secret.Value, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return secret.Value{}, err
	}
	defer r.Close()
	go func() { io.WriteString(w, text); w.Close() }()
	return store.ReadValue(int(r.Fd()), len(text))
}
