package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/zalando/go-keyring"

	"github.com/cutoutdev/cutout/internal/source/sourcetest"
)

// TestSources: one machine, a secret from every source; each value reaches
// the server and nothing else.
func TestSources(t *testing.T) {
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	sourcetest.Keyring(t)
	vault := sourcetest.NewVault(t)
	dir := t.TempDir()
	values := map[string]string{}
	for _, name := range []string{"FROM_ENV", "FROM_FILE", "FROM_EXEC", "FROM_KEYRING", "FROM_VAULT", "FROM_AGE"} {
		values[name] = newValue()
	}
	vault.V2["app"] = fmt.Sprintf(`{"key":%q}`, values["FROM_VAULT"])
	env := []string{"FROM_ENV=" + values["FROM_ENV"], "AGE_IDENTITY=" + filepath.Join(dir, "id.txt")}
	for name, text := range vault.Env(t, map[string]string{"VAULT_TOKEN": vault.Token}) {
		env = append(env, name+"="+text)
	}
	if err := keyring.Set("api.example.test", "me", values["FROM_KEYRING"]); err != nil {
		t.Fatal(err)
	}
	writeAge(t, dir, values["FROM_AGE"])
	for name, text := range map[string]string{"file": values["FROM_FILE"] + "\n", "printed": values["FROM_EXEC"] + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.ca.WriteFile(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	const at = "@api.example.test"
	b := start(t, env, "run", "-m", "256m",
		"--secret", "FROM_ENV"+at,
		"--secret", "FROM_FILE=file:"+filepath.Join(dir, "file")+at,
		"--secret", "FROM_EXEC=exec:cat "+filepath.Join(dir, "printed")+at,
		"--secret", "FROM_KEYRING=keyring:api.example.test/me"+at,
		"--secret", "FROM_VAULT=vault:team/kv/app#key"+at,
		"--secret", "FROM_AGE=age:"+filepath.Join(dir, "sealed.age")+at,
		"--connect-to", "api.example.test:443="+w.upstreams["API"].Addr().String(),
		"--tls-upstream-ca-cert", filepath.Join(dir, "ca.pem"),
		"--", "sh", "-c", `env; for key in $FROM_ENV $FROM_FILE $FROM_EXEC $FROM_KEYRING $FROM_VAULT $FROM_AGE; do
			curl -sS -H "Authorization: Bearer $key" https://api.example.test/echo; done`)
	if code := b.exit(); code != 0 {
		t.Fatalf("exit status %d: %s%s", code, b.stdout.String(), b.stderr.String())
	}
	served := ""
	for _, r := range w.upstreams["API"].Requests() {
		served += r.Text()
	}
	for name, value := range values {
		if strings.Count(served, "Bearer "+value) != 1 {
			t.Errorf("the server did not get the value of %s", name)
		}
		c := newCanary(value)
		c.check(t, "stdout", bytes.NewReader(b.stdout.Bytes()))
		c.check(t, "stderr", bytes.NewReader(b.stderr.Bytes()))
		checkFiles(t, c, b.home)
		if !strings.Contains(b.stdout.String(), name+"=$MSB_"+name) {
			t.Errorf("the guest has no placeholder for %s", name)
		}
	}
}

// writeAge makes id.txt and sealed.age in dir.
func writeAge(t *testing.T, dir, value string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "id.txt"), []byte(id.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "sealed.age"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := age.Encrypt(f, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, value)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
