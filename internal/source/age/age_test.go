package age

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"github.com/cutoutdev/cutout/internal/source/sourcetest"
)

// encrypt writes value to path as age does.
func encrypt(t *testing.T, path, value string, armored bool, to ...age.Recipient) {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = nopCloser{&out}
	if armored {
		w = armor.NewWriter(&out)
	}
	plain, err := age.Encrypt(w, to...)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(plain, value+"\n")
	if err := plain.Close(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// save writes an identity to path, which it makes.
func save(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func environ(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestSource(t *testing.T) {
	for _, armored := range []bool{false, true} {
		sourcetest.Test(t, func(t *testing.T) sourcetest.Place {
			home := t.TempDir()
			id := newIdentity(t)
			save(t, filepath.Join(home, "id.txt"), "# created today\n"+id.String()+"\n")
			encrypt(t, filepath.Join(home, "another.age"), "the-value-of-another", armored, newIdentity(t).Recipient())
			save(t, filepath.Join(home, "plain"), "the-value-of-another")
			return sourcetest.Place{
				Source: &Source{Getenv: environ(map[string]string{"HOME": home, "AGE_IDENTITY": "~/id.txt"})},
				Put: func(t *testing.T, value string) string {
					encrypt(t, filepath.Join(home, "key.age"), value, armored, newIdentity(t).Recipient(), id.Recipient())
					return "~/key.age"
				},
				Absent: "~/other.age",
				Broken: []string{"~/another.age", "~/plain", home, ""},
			}
		})
	}
}

// sshIdentity writes an SSH key and returns its recipient.
func sshIdentity(t *testing.T, path, passphrase string) age.Recipient {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	save(t, path, string(pem.EncodeToMemory(block)))
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	to, err := agessh.NewEd25519Recipient(key)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// TestIdentities: they are found in their usual places.
func TestIdentities(t *testing.T) {
	home := t.TempDir()
	s := &Source{Getenv: environ(map[string]string{"HOME": home})}
	key := filepath.Join(home, "key.age")
	encrypt(t, key, "sk-live-0123456789", false, newIdentity(t).Recipient())
	if _, err := s.Read(t.Context(), key); err == nil || !strings.Contains(err.Error(), "no age identity") {
		t.Errorf("without identities: %v", err)
	}

	read := func(what string) {
		t.Helper()
		v, err := s.Read(t.Context(), key)
		if err != nil || string(v.Data.Bytes()) != "sk-live-0123456789" {
			t.Errorf("%s: %v", what, err)
		}
		v.Data.Close()
	}
	to := sshIdentity(t, filepath.Join(home, ".ssh", "id_ed25519"), "")
	encrypt(t, key, "sk-live-0123456789", true, to)
	read("an SSH key")

	sshIdentity(t, filepath.Join(home, ".ssh", "id_ed25519"), "a passphrase")
	id := newIdentity(t)
	save(t, filepath.Join(home, ".config", "age", "keys.txt"), id.String())
	encrypt(t, key, "sk-live-0123456789", false, id.Recipient())
	read("keys.txt beside an SSH key with a passphrase")

	s.Getenv = environ(map[string]string{"HOME": home, "AGE_IDENTITY": filepath.Join(home, ".ssh", "id_ed25519")})
	if _, err := s.Read(t.Context(), key); err == nil || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("an identity with a passphrase that the user named: %v", err)
	}
}

// TestIdentityIsNotRepeated: a line that is no identity could be one with a
// slip.
func TestIdentityIsNotRepeated(t *testing.T) {
	home := t.TempDir()
	text := newIdentity(t).String() + "X"
	save(t, filepath.Join(home, "id.txt"), text)
	s := &Source{Getenv: environ(map[string]string{"AGE_IDENTITY": filepath.Join(home, "id.txt")})}
	_, err := s.Read(t.Context(), filepath.Join(home, "key.age"))
	if err == nil || strings.Contains(err.Error(), text[16:40]) {
		t.Errorf("got %v", err)
	}
}
