package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/cutoutdev/cutout/internal/source"
)

// kubernetesToken is where a pod finds who it is.
const kubernetesToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// login gets a token. VAULT_AUTH_METHOD says how; by default it is
//
//   - token: VAULT_TOKEN, or what vault login has left in ~/.vault-token;
//   - approle, if there is no such token and VAULT_ROLE_ID is set: with
//     VAULT_SECRET_ID;
//   - kubernetes, if there is neither and VAULT_ROLE is set: with the pod's
//     service account, or the token in VAULT_JWT_FILE.
//
// VAULT_AUTH_MOUNT is where the method is mounted, if not under its name.
func (c *client) login(ctx context.Context, s *Source) error {
	method := s.getenv("AUTH_METHOD")
	if method == "" || method == "token" {
		token, err := s.token()
		if err != nil {
			return err
		}
		if c.token = token; token != "" {
			return nil
		}
	}
	switch {
	case method == "approle", method == "" && s.getenv("ROLE_ID") != "":
		return c.exchange(ctx, s, "approle", map[string]string{"role_id": s.getenv("ROLE_ID"), "secret_id": s.getenv("SECRET_ID")})
	case method == "kubernetes", method == "" && s.getenv("ROLE") != "":
		file := s.getenv("JWT_FILE")
		if file == "" {
			file = kubernetesToken
		}
		jwt, err := readToken(file)
		if err != nil {
			return fmt.Errorf("read the service account's token: %w", err)
		}
		return c.exchange(ctx, s, "kubernetes", map[string]string{"role": s.getenv("ROLE"), "jwt": jwt})
	case method == "" || method == "token":
		return source.Errorf("run vault login, or export VAULT_TOKEN", "nobody is logged in")
	}
	return source.Errorf("use token, approle or kubernetes", "VAULT_AUTH_METHOD is unknown")
}

// exchange trades credentials for a token.
func (c *client) exchange(ctx context.Context, s *Source, method string, credentials map[string]string) error {
	mount := strings.Trim(s.getenv("AUTH_MOUNT"), "/")
	if mount == "" {
		mount = method
	}
	var answer struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	if err := c.do(ctx, http.MethodPost, "auth/"+mount+"/login", credentials, &answer); err != nil {
		return fmt.Errorf("log in with %s: %w", method, err)
	}
	if answer.Auth.Token == "" {
		return fmt.Errorf("log in with %s: the server gives no token", method)
	}
	c.token = answer.Auth.Token
	return nil
}

// token returns the user's token, "" if there is none.
func (s *Source) token() (string, error) {
	if t := s.getenv("TOKEN"); t != "" {
		return t, nil
	}
	home := s.Getenv("HOME")
	if home == "" {
		return "", nil
	}
	token, err := readToken(filepath.Join(home, ".vault-token"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return token, err
}

// maxToken bounds a file with a token.
const maxToken = 64 << 10

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxToken))
	return strings.TrimSpace(string(data)), err
}
