// Package age reads values from files that are encrypted with age.
package age

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"

	"github.com/cutoutdev/cutout/internal/source"
	"github.com/cutoutdev/cutout/internal/source/file"
)

// A Source decrypts files with the identities in the file that AGE_IDENTITY
// names, or else with those in age/keys.txt of the configuration directory
// and with the SSH keys of the user that have no passphrase.
type Source struct {
	Getenv func(string) string // as os.Getenv
}

// maxFile bounds an encrypted file: a value, its armor and headers for more
// recipients than anybody has.
const maxFile = 1 << 20

// Read returns what the file ref holds once decrypted, without one line end.
func (s *Source) Read(_ context.Context, ref string) (source.Value, error) {
	home := s.Getenv("HOME")
	ids, err := s.identities(home)
	if err != nil {
		return source.Value{}, err
	}
	sealed, err := read(file.Expand(ref, home))
	if err != nil {
		return source.Value{}, err
	}
	var r io.Reader = bytes.NewReader(sealed)
	if bytes.HasPrefix(sealed, []byte(armor.Header)) {
		r = armor.NewReader(r)
	}
	plain, err := age.Decrypt(r, ids...)
	if none := (*age.NoIdentityMatchError)(nil); errors.As(err, &none) {
		return source.Value{}, source.Errorf("name the file with the right identity in AGE_IDENTITY", "none of the identities is a recipient of %s", ref)
	}
	if err != nil { // the library's error quotes what it does not understand
		return source.Value{}, source.Errorf("encrypt it with age", "%s is not encrypted with age, or damaged", ref)
	}
	b, err := source.NewBuffer()
	if err != nil {
		return source.Value{}, err
	}
	if _, err := b.ReadFrom(plain); err != nil {
		b.Close()
		if errors.Is(err, source.ErrTooLong) {
			return source.Value{}, err
		}
		return source.Value{}, source.Errorf("", "%s is damaged", ref)
	}
	b.DropLineEnd()
	return source.Value{Data: b}, nil
}

// identities returns those of the file that the user named, or all that lie
// in the usual places.
func (s *Source) identities(home string) ([]age.Identity, error) {
	if path := s.Getenv("AGE_IDENTITY"); path != "" {
		return parse(file.Expand(path, home))
	}
	dir := s.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(home, ".config")
	}
	var all []age.Identity
	for _, path := range []string{
		filepath.Join(dir, "age", "keys.txt"), filepath.Join(home, ".ssh", "id_ed25519"), filepath.Join(home, ".ssh", "id_rsa"),
	} {
		ids, err := parse(path)
		switch {
		case errors.Is(err, errPassphrase), errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, ids...)
	}
	if len(all) == 0 {
		return nil, source.Errorf("name the file with your identity in AGE_IDENTITY", "there is no age identity")
	}
	return all, nil
}

var errPassphrase = errors.New("the key has a passphrase")

// parse reads a file of identities: native ones, a line each, or one private
// SSH key.
func parse(path string) ([]age.Identity, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	if first, _ := bufio.NewReader(bytes.NewReader(text)).Peek(10); !bytes.HasPrefix(first, []byte("-----BEGIN")) {
		ids, err := age.ParseIdentities(bytes.NewReader(text))
		if err != nil { // the library's error may quote a line
			return nil, source.Errorf("it must hold lines that begin with AGE-SECRET-KEY-1, or one SSH key", "%s holds no age identities", path)
		}
		return ids, nil
	}
	id, err := agessh.ParseIdentity(text)
	if err != nil && bytes.Contains(text, []byte("PRIVATE KEY")) {
		return nil, source.Errorf("only keys without one can be used: make an identity with age-keygen", "%s: %w", path, errPassphrase)
	}
	if err != nil {
		return nil, source.Errorf("", "%s holds no identity that age can use", path)
	}
	return []age.Identity{id}, nil
}

func read(path string) ([]byte, error) {
	f, _, err := file.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}
