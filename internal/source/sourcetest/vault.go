package sourcetest

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A VaultServer speaks the part of the protocol that a reader needs: tokens,
// namespaces, logins, mounts, and key/value engines of both versions. It
// stands in for a real one, which no test can install.
type VaultServer struct {
	*httptest.Server
	Namespace string
	Token     string
	V2, V1    map[string]string // path below team/kv/ and old/ → JSON of the fields
	HideMount bool              // nobody may ask where engines are mounted
	Logins    map[string]string // path → JSON that must be posted
}

// NewVault starts a server without secrets.
func NewVault(t *testing.T) *VaultServer {
	s := &VaultServer{Token: "hvs.right-token", V2: map[string]string{}, V1: map[string]string{}, Logins: map[string]string{}}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	return s
}

// Env is what lets a reader find s.
func (s *VaultServer) Env(t *testing.T, more map[string]string) map[string]string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"VAULT_ADDR": s.URL, "VAULT_CACERT": ca}
	for name, text := range more {
		vars[name] = text
	}
	return vars
}

// ServeHTTP answers as Vault does.
func (s *VaultServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	if r.Header.Get("X-Vault-Request") != "true" || r.Header.Get("X-Vault-Namespace") != s.Namespace {
		refuse(w, http.StatusNotFound, "no handler for route")
		return
	}
	if want, ok := s.Logins[path]; ok && r.Method == http.MethodPost {
		var posted, wanted map[string]string
		json.NewDecoder(r.Body).Decode(&posted)
		json.Unmarshal([]byte(want), &wanted)
		if fmt.Sprint(posted) != fmt.Sprint(wanted) {
			refuse(w, http.StatusBadRequest, "invalid role or secret ID")
			return
		}
		fmt.Fprintf(w, `{"auth":{"client_token":%q,"lease_duration":3600}}`, s.Token)
		return
	}
	if r.Header.Get("X-Vault-Token") != s.Token {
		refuse(w, http.StatusForbidden, "permission denied")
		return
	}
	s.read(w, path)
}

func (s *VaultServer) read(w http.ResponseWriter, path string) {
	about, asked := strings.CutPrefix(path, "sys/internal/ui/mounts/")
	v2, isV2 := strings.CutPrefix(path, "team/kv/data/")
	v1, isV1 := strings.CutPrefix(path, "old/")
	switch {
	case asked && s.HideMount:
		refuse(w, http.StatusForbidden, "preflight capability check returned 403")
	case asked && strings.HasPrefix(about, "team/kv/"):
		fmt.Fprint(w, `{"data":{"path":"team/kv/","type":"kv","options":{"version":"2"}}}`)
	case asked && strings.HasPrefix(about, "old/"):
		fmt.Fprint(w, `{"data":{"path":"old/","type":"kv","options":null}}`)
	case isV2 && s.V2[v2] != "":
		fmt.Fprintf(w, `{"data":{"data":%s,"metadata":{"version":3}}}`, s.V2[v2])
	case isV1 && s.V1[v1] != "":
		fmt.Fprintf(w, `{"data":%s,"lease_duration":2764800}`, s.V1[v1])
	case strings.HasPrefix(path, "secret/data/"):
		fmt.Fprint(w, `{"data":{"data":{"key":"value-of-secret"},"metadata":{"version":1}}}`)
	default:
		refuse(w, http.StatusNotFound)
	}
}

func refuse(w http.ResponseWriter, status int, says ...string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string][]string{"errors": says})
}
