package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// A keychain finds registry credentials where docker and podman keep them.
// Unlike the registry library's own it chooses the environment of the
// credential helpers, in which a secret of the caller must not stand.
type keychain struct{ environ []string }

var _ authn.ContextKeychain = keychain{}

// helperVariables are what credential helpers need to find their stores.
var helperVariables = []string{
	"PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
	"XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "GNUPGHOME", "GPG_TTY",
	"PASSWORD_STORE_DIR", "AWS_PROFILE", "AWS_REGION", "AWS_CONFIG_FILE", "CLOUDSDK_CONFIG",
}

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

func (k keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	cf, err := dockerConfig()
	if err != nil {
		return nil, fmt.Errorf("read registry credentials: %w", err)
	}
	if cf == nil {
		return authn.Anonymous, nil
	}
	for _, key := range []string{r.String(), r.RegistryStr()} {
		if key == name.DefaultRegistry {
			key = authn.DefaultAuthKey
		}
		a, err := k.auth(ctx, cf, key)
		if err != nil {
			return nil, fmt.Errorf("read registry credentials: %w", err)
		}
		a.ServerAddress = ""
		if a != (types.AuthConfig{}) {
			return authn.FromConfig(authn.AuthConfig{
				Username: a.Username, Password: a.Password, Auth: a.Auth,
				IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
			}), nil
		}
	}
	return authn.Anonymous, nil
}

// dockerConfig returns docker's configuration, else podman's, else nil.
func dockerConfig() (*configfile.ConfigFile, error) {
	home, _ := os.UserHomeDir()
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		dir = filepath.Join(home, ".docker")
	}
	candidates := []string{filepath.Join(dir, "config.json"), os.Getenv("REGISTRY_AUTH_FILE")}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		candidates = append(candidates, filepath.Join(d, "containers/auth.json"))
	}
	candidates = append(candidates, filepath.Join(home, ".config/containers/auth.json"))
	for _, path := range candidates {
		if path == "" || !isFile(path) {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		cf, err := config.LoadFromReader(f)
		if err != nil {
			return nil, fmt.Errorf("%s is malformed", path) // the cause may quote it
		}
		return cf, nil
	}
	return nil, nil
}

func (k keychain) auth(ctx context.Context, cf *configfile.ConfigFile, key string) (types.AuthConfig, error) {
	helper := cf.CredentialsStore
	if h, ok := cf.CredentialHelpers[key]; ok {
		helper = h
	}
	if helper == "" {
		return cf.GetAuthConfig(key)
	}
	return k.ask(ctx, helper, key)
}

// ask runs docker-credential-HELPER get.
func (k keychain) ask(ctx context.Context, helper, key string) (types.AuthConfig, error) {
	var none types.AuthConfig
	if strings.ContainsRune(helper, filepath.Separator) {
		return none, errors.New("the credential helper's name is a path")
	}
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(key)
	cmd.Stderr = os.Stderr
	cmd.Env = k.environ
	if cmd.Env == nil {
		cmd.Env = []string{}
		for _, v := range helperVariables {
			if value, ok := os.LookupEnv(v); ok {
				cmd.Env = append(cmd.Env, v+"="+value)
			}
		}
	}
	out, err := cmd.Output()
	if err != nil {
		if bytes.Contains(out, []byte("credentials not found in native keychain")) {
			return none, nil
		}
		return none, fmt.Errorf("run docker-credential-%s: %w", helper, err)
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(out, &got); err != nil {
		return none, fmt.Errorf("run docker-credential-%s: its answer is malformed", helper)
	}
	if got.Username == "<token>" {
		return types.AuthConfig{IdentityToken: got.Secret}, nil
	}
	return types.AuthConfig{Username: got.Username, Password: got.Secret}, nil
}
