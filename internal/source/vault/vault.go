// Package vault reads values from a HashiCorp Vault or OpenBao server: a
// field of a secret in a key/value engine, of version 2 or 1.
package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/source"
)

// A Source reads from the server that the environment names, as the vault
// and bao commands do: VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT; the same
// names with BAO_ come first. See token for how it logs in.
type Source struct {
	Getenv func(string) string // as os.Getenv
}

// timeout bounds each exchange.
const timeout = 30 * time.Second

// maxAnswer is more than an engine stores in one secret.
const maxAnswer = 4 << 20

// Read returns the field of ref, PATH#FIELD. PATH is as vault kv get takes
// it, the engine's mount first.
func (s *Source) Read(ctx context.Context, ref string) (source.Value, error) {
	path, field, ok := strings.Cut(ref, "#")
	path = strings.Trim(path, "/")
	if !ok || path == "" || field == "" {
		return source.Value{}, source.Errorf("write vault:PATH#FIELD, such as vault:secret/app#api_key", "the reference names no path and field")
	}
	c, err := s.client()
	if err != nil {
		return source.Value{}, err
	}
	if err := c.login(ctx, s); err != nil {
		return source.Value{}, err
	}
	data, err := c.secret(ctx, path)
	if err != nil {
		return source.Value{}, err
	}
	value, ok := data[field]
	if !ok {
		return source.Value{}, source.Errorf("vault kv get "+path+" shows its fields", "%s has no field %s", path, field)
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		return source.Value{}, source.Errorf("", "the field %s of %s is not a text", field, path)
	}
	b, err := source.Hold([]byte(text))
	return source.Value{Data: b}, err
}

// A client talks to one server.
type client struct {
	base      *url.URL
	namespace string
	token     string
	http      http.Client
}

// getenv returns the variable of OpenBao or else of Vault.
func (s *Source) getenv(name string) string {
	if v := s.Getenv("BAO_" + name); v != "" {
		return v
	}
	return s.Getenv("VAULT_" + name)
}

func (s *Source) client() (*client, error) {
	addr := s.getenv("ADDR")
	if addr == "" {
		return nil, source.Errorf("export VAULT_ADDR=https://…", "no server is named")
	}
	base, err := url.Parse(addr)
	if err != nil || base.Host == "" || base.User != nil || base.Scheme != "https" && base.Scheme != "http" {
		return nil, source.Errorf("write https://HOST:PORT", "VAULT_ADDR is not the address of a server")
	}
	if base.Scheme == "http" && !loopback(base.Hostname()) {
		return nil, source.Errorf("write https://", "VAULT_ADDR would send the token unencrypted")
	}
	roots, err := x509.SystemCertPool()
	if file := s.getenv("CACERT"); file != "" && err == nil {
		var pem []byte
		if pem, err = os.ReadFile(file); err == nil && !roots.AppendCertsFromPEM(pem) {
			err = fmt.Errorf("%s holds no certificate", file)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	c := &client{base: base, namespace: s.getenv("NAMESPACE")}
	c.http = http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		},
		// net/http would take the token along to wherever it is sent.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// secret returns the fields of the secret at path.
func (c *client) secret(ctx context.Context, path string) (map[string]json.RawMessage, error) {
	mount, version := c.mount(ctx, path)
	rest := strings.TrimPrefix(strings.TrimPrefix(path+"/", mount), "/")
	rest = strings.TrimSuffix(rest, "/")
	if version == "1" {
		return c.fields(ctx, path, mount+rest)
	}
	var data struct {
		Data json.RawMessage `json:"data"`
	}
	if err := c.get(ctx, mount+"data/"+rest, &data); err != nil {
		return nil, explain(err, path)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data.Data, &fields); err != nil || fields == nil {
		return nil, source.Errorf("", "the latest version of %s is deleted", path)
	}
	return fields, nil
}

func (c *client) fields(ctx context.Context, path, at string) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := c.get(ctx, at, &fields); err != nil {
		return nil, explain(err, path)
	}
	return fields, nil
}

// mount asks where path's engine is mounted and which version it has. Who
// may not ask gets the usual: the first segment, version 2.
func (c *client) mount(ctx context.Context, path string) (mount, version string) {
	var m struct {
		Path    string `json:"path"`
		Options struct {
			Version string `json:"version"`
		} `json:"options"`
	}
	if err := c.get(ctx, "sys/internal/ui/mounts/"+path, &m); err == nil && m.Path != "" && strings.HasPrefix(path+"/", m.Path) {
		if m.Options.Version == "" {
			return m.Path, "1"
		}
		return m.Path, m.Options.Version
	}
	first, _, _ := strings.Cut(path, "/")
	return first + "/", "2"
}

// get reads the data of the answer at path.
func (c *client) get(ctx context.Context, path string, into any) error {
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	if err := c.do(ctx, http.MethodGet, path, nil, &answer); err != nil {
		return err
	}
	return json.Unmarshal(answer.Data, into)
}

// A statusError is an answer that is none.
type statusError struct {
	status int
	says   string
}

func (e *statusError) Error() string {
	if e.says != "" {
		return fmt.Sprintf("the server answers %d: %s", e.status, e.says)
	}
	return fmt.Sprintf("the server answers %d %s", e.status, http.StatusText(e.status))
}

func (c *client) do(ctx context.Context, method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath("v1", path).String(), content)
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Request", "true")
	if c.token != "" {
		req.Header.Set("X-Vault-Token", c.token)
	}
	if c.namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.namespace)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return unreachable(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the server's answer: %w", err)
	case len(data) > maxAnswer:
		return errors.New("the server's answer is too long")
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return source.Errorf("it is a standby: name the active server in VAULT_ADDR", "the server sends us elsewhere, which is not followed")
	case resp.StatusCode != http.StatusOK:
		return &statusError{resp.StatusCode, errorsIn(data)}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return errors.New("the server's answer is not JSON") // whose error would quote it
	}
	return nil
}

// errorsIn returns what a refusal says.
func errorsIn(data []byte) string {
	var said struct {
		Errors []string `json:"errors"`
	}
	json.Unmarshal(data, &said)
	return strings.Join(strings.Fields(strings.Join(said.Errors, "; ")), " ")
}

// unreachable drops the URL, of which the user has named the server only.
func unreachable(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	hint := "check VAULT_ADDR and that the server is up"
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		hint = "name its CA in VAULT_CACERT"
	} else if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op
	}
	return source.Errorf(hint, "reach the server: %w", err)
}

// explain adds what can be done about a refusal to read path.
func explain(err error, path string) error {
	status, ok := errors.AsType[*statusError](err)
	if !ok {
		return err
	}
	switch status.status {
	case http.StatusNotFound:
		return source.Errorf("vault kv get "+path+" shows what is there", "there is no secret %s", path)
	case http.StatusForbidden:
		return source.Errorf("log in anew, or ask for the right to read it", "read %s: %w", path, err)
	}
	return fmt.Errorf("read %s: %w", path, err)
}
