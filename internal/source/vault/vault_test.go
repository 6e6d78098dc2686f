package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/source/sourcetest"
)

func environ(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestSource(t *testing.T) {
	for _, mount := range []string{"team/kv", "old"} {
		t.Run(mount, func(t *testing.T) {
			sourcetest.Test(t, func(t *testing.T) sourcetest.Place {
				s := sourcetest.NewVault(t)
				return sourcetest.Place{
					Source: &Source{Getenv: environ(s.Env(t, map[string]string{"VAULT_TOKEN": s.Token}))},
					Put: func(_ *testing.T, value string) string {
						fields, _ := json.Marshal(map[string]any{"api key": value, "number": 1})
						s.V1["app/one"], s.V2["app/one"] = string(fields), string(fields)
						s.V2["app/gone"] = "null"
						return mount + "/app/one#api key"
					},
					Absent: mount + "/app/two#api key",
					Broken: []string{"", "#", mount + "/app/one", mount + "/app/one#", mount + "/app/one#other", mount + "/app/one#number", "#x", mount + "/app/gone#x"},
				}
			})
		})
	}
}

// read returns the value of ref.
func read(ctx context.Context, vars map[string]string, ref string) (string, error) {
	v, err := (&Source{Getenv: environ(vars)}).Read(ctx, ref)
	if err != nil {
		return "", err
	}
	defer v.Data.Close()
	return string(v.Data.Bytes()), nil
}

// TestLogin: each way to log in works, and with the wrong credentials none.
func TestLogin(t *testing.T) {
	home, jwt := t.TempDir(), filepath.Join(t.TempDir(), "jwt")
	if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte("hvs.right-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(jwt, []byte("eyJ.the.pod\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sourcetest.NewVault(t)
	s.Logins["auth/approle/login"] = `{"role_id":"r1","secret_id":"s1"}`
	s.Logins["auth/cluster-7/login"] = `{"role":"app","jwt":"eyJ.the.pod"}`
	for name, vars := range map[string]map[string]string{
		"token":           {"VAULT_TOKEN": s.Token},
		"OpenBao's token": {"BAO_TOKEN": s.Token, "VAULT_TOKEN": "wrong"},
		"token file":      {"HOME": home},
		"AppRole":         {"VAULT_ROLE_ID": "r1", "VAULT_SECRET_ID": "s1"},
		"AppRole, named":  {"HOME": home, "VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": "r1", "VAULT_SECRET_ID": "s1"},
		"Kubernetes":      {"VAULT_ROLE": "app", "VAULT_JWT_FILE": jwt, "VAULT_AUTH_MOUNT": "cluster-7"},
	} {
		if got, err := read(t.Context(), s.Env(t, vars), "secret/app#key"); got != "value-of-secret" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for name, vars := range map[string]map[string]string{
		"nobody":           {},
		"a wrong token":    {"VAULT_TOKEN": "hvs.wrong-token"},
		"a wrong secret":   {"VAULT_ROLE_ID": "r1", "VAULT_SECRET_ID": "hvs.wrong-token"},
		"no token of one":  {"VAULT_AUTH_METHOD": "token"},
		"no service token": {"VAULT_ROLE": "app", "VAULT_JWT_FILE": jwt + "-none"},
		"unknown":          {"VAULT_AUTH_METHOD": "magic"},
	} {
		if got, err := read(t.Context(), s.Env(t, vars), "secret/app#key"); err == nil || strings.Contains(err.Error(), "hvs.wrong") {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func TestNamespace(t *testing.T) {
	s := sourcetest.NewVault(t)
	s.Namespace, s.HideMount = "team-a", true
	vars := s.Env(t, map[string]string{"VAULT_TOKEN": s.Token, "VAULT_NAMESPACE": "team-a"})
	if got, err := read(t.Context(), vars, "secret/app#key"); got != "value-of-secret" {
		t.Errorf("got %q, %v", got, err)
	}
	vars["VAULT_NAMESPACE"] = "team-b"
	if _, err := read(t.Context(), vars, "secret/app#key"); err == nil {
		t.Error("another namespace has it too")
	}
}

// TestTokenStays: the token goes to the server that the user named, over a
// connection that only it can read.
func TestTokenStays(t *testing.T) {
	got := make(chan string, 16)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("X-Vault-Token")
		fmt.Fprint(w, `{"data":{"data":{"key":"value-of-secret"}}}`)
	}))
	defer elsewhere.Close()
	standby := httptest.NewTLSServer(http.RedirectHandler(elsewhere.URL+"/v1/secret/data/app", http.StatusTemporaryRedirect))
	defer standby.Close()
	s := &sourcetest.VaultServer{Server: standby}
	vars := s.Env(t, map[string]string{"VAULT_TOKEN": "hvs.right-token"})
	if _, err := read(t.Context(), vars, "secret/app#key"); err == nil || len(got) > 0 {
		t.Errorf("a redirection was followed: %v", err)
	}
	delete(vars, "VAULT_CACERT")
	if _, err := read(t.Context(), vars, "secret/app#key"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that did not prove who it is: %v", err)
	}
	for _, addr := range []string{"http://vault.example.com", "vault.example.com", "", "https://me:pw@vault.example.com", "unix:///x"} {
		vars["VAULT_ADDR"] = addr
		if _, err := read(t.Context(), vars, "secret/app#key"); err == nil || !strings.Contains(err.Error(), "VAULT_ADDR") && !strings.Contains(err.Error(), "no server") {
			t.Errorf("%s: got %v", addr, err)
		}
	}
	vars["VAULT_ADDR"] = elsewhere.URL // loopback
	if v, err := read(t.Context(), vars, "secret/app#key"); v != "value-of-secret" {
		t.Errorf("a development server: %v", err)
	}
}
