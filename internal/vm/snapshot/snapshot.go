// Package snapshot keeps the states of machines that have booted and belong to
// no sandbox yet, so that the next sandbox of the same kind need not boot.
//
// It promises that what it returns is what was stored, for a machine made of
// the same files in the same way: a snapshot is sealed with a key of the
// store, and read as it is checked. A file that was changed, cut or put in
// another's place is refused and deleted. No machine ever gets a file of the
// store, for reading or for writing: states go through the caller.
//
// A store is a cache. Whatever is in it may be deleted at any time, and is,
// when it is of no more use or the store is full.
package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

var (
	// ErrNone means that there is no snapshot for a kind of machine.
	ErrNone = errors.New("there is no snapshot")

	// ErrRefused means that there was one, and that it was not what had been
	// stored. It is deleted.
	ErrRefused = errors.New("the snapshot is not what was stored")

	// ErrBusy means that somebody else is writing a snapshot.
	ErrBusy = errors.New("another snapshot is being written")

	// ErrFailed means that one could not be made or used lately; the reason
	// follows.
	ErrFailed = errors.New("snapshots of this kind have failed")
)

// A Kind is all that a state depends on. Two machines of one kind can begin
// with the same state.
type Kind struct {
	Machine []string // what it is, such as QEMU's command line
	Files   []File   // what it was made from
	TSCKHz  int      // of the host's counter as the guest was told; 0 = not told
}

// name is that of the kind's snapshot. The counter's rate is not part of it:
// it is measured, and no two measurements are alike.
func (k Kind) name() string {
	k.TSCKHz = 0
	k.Files = slices.Clone(k.Files)
	for i := range k.Files {
		k.Files[i].Path = ""
	}
	text, err := json.Marshal(k)
	if err != nil {
		panic(err) // strings and numbers
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// A File is a file as it was: another one at its path, or another content,
// has another inode, size or time.
type File struct {
	Path    string
	Dev     uint64
	Inode   uint64
	Size    int64
	ModTime int64 // in nanoseconds
}

// Stat describes the file at path as it is now, after links.
func Stat(path string) (File, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return File{}, fmt.Errorf("look at %s: %w", path, err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return File{}, fmt.Errorf("look at %s: %w", path, err)
	}
	f := File{Path: real, Size: info.Size(), ModTime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Dev, f.Inode = uint64(st.Dev), st.Ino
	}
	return f, nil
}

// tscTolerance is by how much two measurements of one counter differ at most,
// as a fraction. The clock of a guest that was told so much too little is as
// wrong.
const tscTolerance = 0.001

func sameTSC(a, b int) bool {
	if a == 0 || b == 0 {
		return a == b
	}
	return float64(max(a, b)-min(a, b)) <= tscTolerance*float64(b)
}
