package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/debian"
	"github.com/cutoutdev/cutout/internal/image"
	"github.com/cutoutdev/cutout/internal/state"
)

// programs are the packages that the default image lacks.
var programs = []string{"bind9-dnsutils", "iperf3", "iputils-ping", "netcat-openbsd", "nginx-light", "openssh-client", "python3-pip"}

// programsHome makes a home whose one image is the default one with programs.
// It is made once for each list of packages, from those that apt has.
func programsHome(t *testing.T) (home, name string) {
	t.Helper()
	list := slices.Concat(debian.DefaultPackages(), programs)
	sum := sha256.Sum256([]byte(strings.Join(list, " ")))
	name = "programs-" + hex.EncodeToString(sum[:6])
	shared := state.Home{Data: sharedHome}
	// Beside the images that other tests copy.
	store := image.Store{Dir: filepath.Join(shared.Cache(), "test-images")}
	_, err := store.Lookup(t.Context(), name, nil)
	if errors.Is(err, image.ErrNotFound) {
		err = makeImage(t.Context(), &store, name, shared.Downloads(), list)
	}
	if errors.Is(err, debian.ErrNoApt) {
		t.Fatal("needs apt, which has the packages")
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for link, to := range map[string]string{
		"kernel": filepath.Join(sharedHome, "kernel"), "snapshots": filepath.Join(sharedHome, "snapshots"), "images": store.Dir,
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, name
}

func makeImage(ctx context.Context, store *image.Store, name, work string, packages []string) error {
	if old, err := store.List(); err == nil {
		for _, img := range old { // of other lists
			store.Remove(img.Name)
		}
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return err
	}
	f, err := state.CreateTemp(work)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := debian.Rootfs(ctx, work, packages, f, nil); err != nil {
		return err
	}
	_, err = store.Import(ctx, name, f.Name(), nil)
	return err
}
