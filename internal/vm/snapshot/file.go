package snapshot

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A snapshot's file is
//
//	magic | uint32 length of the kind | kind, JSON | state | seal
//
// with the seal, HMAC-SHA256 under the store's key, of all that stands before
// it.
const (
	magic    = "cutout snapshot 1\n"
	maxKind  = 1 << 20
	sealSize = sha256.Size
)

// A Writer stores a snapshot. It is a snapshot once Commit has returned.
type Writer struct {
	store  *Store
	path   string
	file   *os.File
	seal   hash.Hash
	left   int64 // bytes that may still be written
	unlock func()
}

// Create begins a snapshot of kind k with a state of at most maxState bytes.
// It returns ErrBusy if somebody is writing one, ErrFailed if that has failed
// lately.
func (s *Store) Create(k Kind, maxState int64) (*Writer, error) {
	if err := s.lately(k); err != nil {
		return nil, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	w := &Writer{store: s, path: s.path(k), left: maxState + maxKind, unlock: unlock}
	if err := w.begin(k); err != nil {
		w.Abort()
		return nil, fmt.Errorf("write snapshot: %w", err)
	}
	return w, nil
}

func (w *Writer) begin(k Kind) error {
	if err := w.store.sweep(); err != nil {
		return err
	}
	key, err := w.store.key(true)
	if err != nil {
		return err
	}
	w.seal = hmac.New(sha256.New, key)
	if w.file, err = os.CreateTemp(w.store.Dir, tempPrefix+"*"); err != nil {
		return err
	}
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32([]byte(magic), uint32(len(text))), text...))
	return err
}

var errTooLarge = errors.New("the state is larger than the machine")

func (w *Writer) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		return 0, errTooLarge
	}
	w.seal.Write(p)
	return w.file.Write(p)
}

// Commit puts the snapshot in its place. There is no need that it survives a
// power cut: half a snapshot has no seal.
func (w *Writer) Commit() error {
	defer w.Abort()
	_, err := w.file.Write(w.seal.Sum(nil))
	if err == nil {
		err = w.file.Chmod(0o400)
	}
	if err == nil {
		err = w.file.Close()
	}
	if err == nil {
		err = os.Rename(w.file.Name(), w.path)
	}
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	w.file = nil
	return w.store.sweep()
}

// Abort gives up what was not committed.
func (w *Writer) Abort() {
	if w.file != nil {
		w.file.Close()
		os.Remove(w.file.Name())
		w.file = nil
	}
	if w.unlock != nil {
		w.unlock()
		w.unlock = nil
	}
}

// A Reader reads a state. It ends with io.EOF only if all that it has read is
// what was stored, else with an error that wraps ErrRefused.
type Reader struct {
	file *os.File
	seal hash.Hash
	left int64 // of the state
	err  error
}

// Open returns the state of a machine of kind k: ErrNone if there is none,
// ErrFailed if that has failed lately, ErrRefused if it is not what was
// stored.
func (s *Store) Open(k Kind) (*Reader, error) {
	if err := s.lately(k); err != nil {
		return nil, err
	}
	f, info, err := openSealed(s.path(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err == nil {
		var r *Reader
		if r, err = s.reader(f, info, k); err == nil {
			now := time.Now()
			os.Chtimes(s.path(k), now, now) // last use
			return r, nil
		}
		f.Close()
	}
	s.drop(k, err)
	return nil, err
}

// drop deletes a snapshot that was refused or does not fit.
func (s *Store) drop(k Kind, err error) {
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrNone) {
		os.Remove(s.path(k))
	}
}

// Refused deletes the snapshot of kind k if err, from a Reader of it, says
// that it is not what was stored.
func (s *Store) Refused(k Kind, err error) bool {
	s.drop(k, err)
	return errors.Is(err, ErrRefused)
}

func (s *Store) reader(f *os.File, info fs.FileInfo, k Kind) (*Reader, error) {
	key, err := s.key(false)
	if err != nil {
		return nil, err
	}
	seal := hmac.New(sha256.New, key)
	stored, err := readKind(io.TeeReader(f, seal))
	if err != nil {
		return nil, err
	}
	if stored.name() != k.name() {
		return nil, fmt.Errorf("%w: it is another's", ErrRefused)
	}
	if !sameTSC(stored.TSCKHz, k.TSCKHz) {
		return nil, fmt.Errorf("%w: its clock is another's", ErrNone)
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	r := &Reader{file: f, seal: seal, left: info.Size() - at - sealSize}
	if r.left < 0 {
		return nil, fmt.Errorf("%w: it is cut", ErrRefused)
	}
	return r, nil
}

func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.left == 0 {
		r.err = r.check()
		return 0, r.err
	}
	n, err := r.file.Read(p[:min(int64(len(p)), r.left)])
	r.seal.Write(p[:n])
	r.left -= int64(n)
	if err == io.EOF {
		err = fmt.Errorf("%w: it is cut", ErrRefused)
	}
	r.err = err
	return n, err
}

// check compares the seal at the end.
func (r *Reader) check() error {
	var seal [sealSize]byte
	if _, err := io.ReadFull(r.file, seal[:]); err != nil {
		return fmt.Errorf("%w: it is cut", ErrRefused)
	}
	if !hmac.Equal(seal[:], r.seal.Sum(nil)) {
		return ErrRefused
	}
	return io.EOF
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }

// openSealed opens a snapshot's file, which must be a regular file of ours
// that nobody may write to.
func openSealed(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, nil, fmt.Errorf("%w: it is a link", ErrRefused)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		st, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !info.Mode().IsRegular() || info.Mode().Perm() != 0o400:
			err = fmt.Errorf("%w: its mode is %v", ErrRefused, info.Mode())
		case !ok || int(st.Uid) != os.Geteuid():
			err = fmt.Errorf("%w: it belongs to another user", ErrRefused)
		}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// readKind reads the beginning of a file.
func readKind(r io.Reader) (k Kind, err error) {
	var head [len(magic) + 4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || string(head[:len(magic)]) != magic {
		return k, fmt.Errorf("%w: it has no beginning", ErrRefused)
	}
	n := binary.BigEndian.Uint32(head[len(magic):])
	if n > maxKind {
		return k, fmt.Errorf("%w: it has no beginning", ErrRefused)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return k, fmt.Errorf("%w: it is cut", ErrRefused)
	}
	if err := json.Unmarshal(text, &k); err != nil {
		return k, fmt.Errorf("%w: it has no beginning", ErrRefused)
	}
	return k, nil
}
