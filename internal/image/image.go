// Package image keeps the root file systems of sandboxes: one read-only ext4
// file per image digest, built from tars, directories, docker and OCI
// archives and registries.
//
// It promises that a disk is either whole or not there, that it holds exactly
// what the layers say (owners, modes, times, links, extended attributes,
// devices), and that building it needs no privilege. Layers are untrusted:
// they are checked as a stream, merged in memory and written into the ext4
// file; no entry of theirs is ever created on the host.
//
// It refuses layers that a file system could read in two ways: names that
// leave the root, entries and links that pass through a symbolic link, links
// to nothing, and whatever exceeds the store's limits.
package image

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

var (
	// ErrNotFound is returned for a name that the store does not hold.
	ErrNotFound = errors.New("image not found")

	// ErrCorrupt is returned for an image whose disk is missing or is not
	// what was built; importing or pulling it again repairs it.
	ErrCorrupt = errors.New("image is corrupt")

	// ErrRefused is wrapped by every error about the content of a layer,
	// archive or manifest.
	ErrRefused = errors.New("image refused")

	// ErrUnauthorized is returned where a registry does not let the caller
	// read the image, or does not tell strangers whether it exists.
	ErrUnauthorized = errors.New("the registry wants other credentials")

	// ErrNoSpace is returned before anything is written when the image
	// would not fit on the store's file system.
	ErrNoSpace = errors.New("not enough free space")
)

// Progress is told how far a stage is, in bytes unless the stage says
// otherwise; total is 0 while it is unknown. It is called from one goroutine
// at a time and may be nil.
type Progress func(stage string, done, total int64)

func (p Progress) report(stage string, done, total int64) {
	if p != nil {
		p(stage, done, total)
	}
}

// The stages that Progress is told.
const (
	StageDownload = "downloading"
	StageUnpack   = "unpacking archive"
	StageRead     = "reading layers"
	StageWrite    = "writing disk"
	StageSum      = "checking disk"
)

// An Image is a root file system in the store.
type Image struct {
	Name    string
	Digest  string // sha256:… of the manifest, the docker image id, or the content
	Disk    string // path of the read-only ext4 file
	Size    int64  // of Disk, in bytes
	SHA256  string // of Disk, hex
	Created time.Time
	Config  Config
}

// A Config is what an image says about the process to run in it.
type Config struct {
	Env        []string `json:"env,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	User       string   `json:"user,omitempty"`
}

// Open opens the image's disk for reading and checks that it is the regular
// file of the recorded size. The caller closes it.
func (i Image) Open() (*os.File, error) {
	f, err := os.OpenFile(i.Disk, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open disk of image %q: %w: the disk is missing", i.Name, ErrCorrupt)
	case errors.Is(err, syscall.ELOOP):
		return nil, fmt.Errorf("open disk of image %q: %w: a link is in the disk's place", i.Name, ErrCorrupt)
	case err != nil:
		return nil, fmt.Errorf("open disk of image %q: %w", i.Name, err)
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != i.Size) {
		err = fmt.Errorf("open disk of image %q: %w: the disk has another size than was built", i.Name, ErrCorrupt)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Limits bounds what a store accepts. A zero field means its default.
type Limits struct {
	// Entries in all layers together. Default 999,999: each costs some
	// 1.4 KB of memory while the disk is built, so 1.4 GB in all; the
	// largest public images (CI runners) hold some 600,000.
	Entries int

	// FileBytes is the size that one file may claim, holes included.
	// Default 32 GiB: the ext4 writer's extent trees are wrong above 42 GiB.
	FileBytes int64

	// TotalBytes is what all layers may unpack to. Default 64 GiB: twice
	// the largest machine-learning images.
	TotalBytes int64

	// Ratio is how many times its compressed size a layer may unpack to,
	// above a first 256 MiB. Default 250: gzip reaches 1,032 on zeros,
	// software and logs stay below 50.
	Ratio int64
}

func (l Limits) withDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = 999_999
	}
	if l.FileBytes == 0 {
		l.FileBytes = 32 << 30
	}
	if l.TotalBytes == 0 {
		l.TotalBytes = 64 << 30
	}
	if l.Ratio == 0 {
		l.Ratio = 250
	}
	return l
}

// refuse returns an error that wraps ErrRefused. Text that a layer chose is
// passed with %q.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// validName says what cannot name an image: it becomes a file name.
func validName(name string) error {
	switch {
	case name == "":
		return errors.New("image name is empty")
	case len(name) > 512:
		return errors.New("image name is longer than 512 bytes")
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xfffd }):
		return fmt.Errorf("image name %q has a space or control character", name)
	}
	return nil
}
