package agent

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cutoutdev/cutout/internal/roots"
	"golang.org/x/sys/unix"
)

// anchors are where the tools that make the bundles anew look for additions.
var anchors = []string{
	"/etc/pki/ca-trust/source/anchors", // Red Hat
	"/etc/pki/trust/anchors",           // SUSE
}

// ownCA holds the sandbox's CA alone. Debian's and Alpine's
// update-ca-certificates look there too.
const ownCA = "/usr/local/share/ca-certificates/cutout.crt"

// trust is what the image's programs are told to believe.
type trust struct {
	bundle string // "": nothing was added
	ca     []byte
}

// add adds the CA to every bundle of the image. needRoots says that it has
// none.
func (t *trust) add(ca []byte) (needRoots bool, err error) {
	if len(ca) == 0 {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(ownCA), 0o755); err != nil {
		return false, err
	}
	if err := replace(ownCA, string(ca)); err != nil {
		return false, err
	}
	for _, dir := range anchors {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			if err := replace(dir+"/cutout.pem", string(ca)); err != nil {
				return false, err
			}
		}
	}
	done := make(map[string]bool) // one file under several names
	for _, name := range roots.Bundles {
		if unix.Access(name, unix.F_OK) != nil {
			continue // most are not there
		}
		real, err := filepath.EvalSymlinks(name)
		if err != nil || done[real] {
			continue
		}
		done[real] = true
		ok, err := appendPEM(real, string(ca))
		if err != nil {
			return false, fmt.Errorf("add to %s: %w", name, err)
		}
		if ok && t.bundle == "" {
			t.bundle = name
		}
	}
	t.ca = ca
	return t.bundle == "", nil
}

// addRoots gives an image that has no roots those of the host, and the CA.
func (t *trust) addRoots(pem []byte) error {
	if t.ca == nil || t.bundle != "" {
		return fmt.Errorf("the image has roots of its own")
	}
	name := roots.Bundles[0]
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if len(pem) > 0 && pem[len(pem)-1] != '\n' {
		pem = append(pem, '\n')
	}
	if err := replace(name, string(pem)+string(t.ca)); err != nil {
		return err
	}
	t.bundle = name
	return nil
}

// appendPEM adds to a bundle. What is no regular file, or an empty one, is no
// bundle.
func appendPEM(name, pem string) (bool, error) {
	fd, size, err := openRegular(name, unix.O_RDONLY)
	if err != nil || size == 0 {
		return false, nil
	}
	var last [1]byte
	_, err = unix.Pread(fd, last[:], size-1)
	unix.Close(fd)
	if err != nil {
		return false, err
	}
	if last[0] != '\n' {
		pem = "\n" + pem
	}
	// Opened anew, since before a file is written to it is that of the image.
	if fd, _, err = openRegular(name, unix.O_WRONLY|unix.O_APPEND); err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return true, writeAll(fd, name, pem)
}

// environ points programs that do not read the system's bundle to it.
func (t *trust) environ() []string {
	if t.bundle == "" {
		return nil
	}
	return roots.Variables(t.bundle, ownCA)
}
