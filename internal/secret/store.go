package secret

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Lengths of a value. Shorter ones turn up by chance in what an upstream
// sends and cannot be told from it: a set takes them only if it is told to.
// Longer ones fit no request.
const (
	MinValue = 8
	MaxValue = 64 << 10
)

// Sizes of the region. A slot is what one TLS record can carry, so a swapped
// write is one record; sixteen of them, since a slot is taken only for the
// time of one write.
const (
	slotSize    = 16 << 10
	slots       = 16
	defaultSize = 1 << 20
	align       = 16
)

// ErrClosed is returned for every use of a [Store] after Close.
var ErrClosed = errors.New("secret store is closed")

// ErrNoMemory is in the error of [NewStore] when the memory cannot be locked.
var ErrNoMemory = errors.New("map locked memory")

// A mapping is the region. It stands behind a pointer of its own because fmt
// follows one pointer, even past a Format method, when a value lies in an
// unexported field and the verb is wrong.
type mapping struct{ bytes []byte }

// ErrFull is returned when the region has no room left.
var ErrFull = errors.New("locked memory is full")

// ErrLineBreak is returned for a value that was read and can be in no header.
var ErrLineBreak = errors.New("value holds a CR, LF or NUL")

var errReleased = errors.New("value was released")

// A Store holds values in one memory region outside the Go heap that is
// locked, kept out of core dumps and children, and, where the system has
// memfd_secret(2), unreadable for every other process, root's too.
//
// Its methods may be called from several goroutines at once.
type Store struct {
	kind string
	slot chan int // offsets of free scratch slots

	mu     sync.RWMutex // held for reading while the region is looked at
	mem    *mapping
	blocks []block // in use, by offset
	limit  int     // where the slots begin
	used   int     // end of the furthest block so far: beyond it all is zero
	pins   int     // slots and reads under way: the mapping must stay
	serial uint64  // of the last block
	closed bool
}

// A block is a part of the region in use. It is zeroed when refs falls to 0.
// The serial tells it from an earlier block in the same place, whose handles
// must not open it.
type block struct {
	off, n   int
	refs     int
	serial   uint64
	released bool // by the owner of its Value
}

// What is derived from values, mostly needles, twice while a set takes
// another's place, and encodings for the requests under way. TestRoom measures
// it.
const (
	perValue = 32 << 10
	perByte  = 384
	// formerValues is for how many former values there is room besides, if they
	// are no longer than tokens are.
	formerValues = 16 * (perValue + perByte*64)
	// perLongByte is for values over maxFull, which have fewer forms.
	perLongByte = 80
)

// Room returns the size for [NewStore] with which values of these lengths
// fit: for usual ones a fraction of the usual RLIMIT_MEMLOCK of 8 MiB.
func Room(values []int) int {
	size := defaultSize
	if len(values) > 0 {
		size += formerValues
	}
	for _, n := range values {
		size += perValue
		if n <= maxFull {
			size += perByte * n
		} else {
			size += perLongByte * n
		}
	}
	return size
}

// NewStore maps a region with room for size bytes of values and what is
// derived from them; 0 stands for 1 MiB. It fails if the memory cannot be
// locked.
func NewStore(size int) (*Store, error) {
	if size <= 0 {
		size = defaultSize
	}
	limit := (size + slotSize - 1) / slotSize * slotSize
	region, kind, err := mapRegion(limit + slots*slotSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMemory, err)
	}
	s := &Store{kind: kind, mem: &mapping{region}, limit: limit, slot: make(chan int, slots)}
	for i := range slots {
		s.slot <- limit + i*slotSize
	}
	return s, nil
}

// Kind tells which protection the region has: "memfd_secret" or "mlock".
func (s *Store) Kind() string { return s.kind }

// Format prints no byte of the region.
func (s *Store) Format(f fmt.State, _ rune) { f.Write([]byte("[secret store]")) }

// ReadValue reads exactly n bytes from fd straight into the region. It
// refuses lengths outside [1, MaxValue] and values with a CR, LF or NUL,
// which no header can carry. It returns when the n bytes are there; fd
// stays open.
func (s *Store) ReadValue(fd, n int) (Value, error) {
	switch {
	case n < 1:
		return Value{}, errors.New("value is empty")
	case n > MaxValue:
		return Value{}, fmt.Errorf("value is longer than %d bytes", MaxValue)
	}
	off, serial, err := s.alloc(n)
	if err != nil {
		return Value{}, err
	}
	if err := s.fill(fd, off, n); err != nil {
		s.release(off)
		return Value{}, err
	}
	return Value{store: s, off: off, n: n, serial: serial}, nil
}

// fill reads the block at off. It does not hold mu over the read, but a pin.
func (s *Store) fill(fd, off, n int) error {
	region, err := s.pin()
	if err != nil {
		return err
	}
	defer s.unpin()
	place := region[off : off+n]
	for got := 0; got < n; {
		m, err := unix.Read(fd, place[got:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		case err != nil:
			return fmt.Errorf("read value: %w", err)
		case m == 0:
			return errors.New("read value: unexpected end of input")
		default:
			got += m
		}
	}
	for _, c := range place {
		if c == '\r' || c == '\n' || c == 0 {
			return ErrLineBreak
		}
	}
	return nil
}

// Release gives a value up. Its bytes are zeroed as soon as no registered
// marker needs them; v and its copies stand for nothing any more.
func (s *Store) Release(v Value) {
	if v.store != s {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.lookup(v); b != nil {
		b.released = true
		s.unref(v.off)
	}
}

// lookup returns the block of a value that was not released, or nil. The
// caller holds mu.
func (s *Store) lookup(v Value) *block {
	i, ok := s.find(v.off)
	if !ok || s.blocks[i].serial != v.serial || s.blocks[i].released {
		return nil
	}
	return &s.blocks[i]
}

// Close zeroes the region and unmaps it once the last write under way has
// returned. Every later use fails with [ErrClosed].
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	clear(s.mem.bytes[:s.used])
	s.blocks = nil
	return s.unmapIfIdle()
}

// pin keeps the mapping alive until unpin, even over Close.
func (s *Store) pin() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.pins++
	return s.mem.bytes, nil
}

func (s *Store) unpin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins--
	s.unmapIfIdle()
}

// unmapIfIdle is called with mu held. A read that was under way at Close may
// have written to its block since; a slot is zeroed before its pin goes.
func (s *Store) unmapIfIdle() error {
	if !s.closed || s.pins > 0 || s.mem.bytes == nil {
		return nil
	}
	clear(s.mem.bytes[:s.used])
	err := unix.Munmap(s.mem.bytes)
	s.mem.bytes = nil
	return err
}

// alloc returns the offset and serial of a zeroed block of n bytes with one
// reference.
func (s *Store) alloc(n int) (int, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, 0, ErrClosed
	}
	off, at := 0, len(s.blocks)
	for i, b := range s.blocks {
		if b.off-off >= n {
			at = i
			break
		}
		off = (b.off + b.n + align - 1) &^ (align - 1)
	}
	if s.limit-off < n {
		return 0, 0, ErrFull
	}
	s.used = max(s.used, off+n)
	s.serial++
	s.blocks = slices.Insert(s.blocks, at, block{off: off, n: n, refs: 1, serial: s.serial})
	return off, s.serial, nil
}

// retain adds a reference to the block of a value.
func (s *Store) retain(v Value) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	b := s.lookup(v)
	if b == nil {
		return errReleased
	}
	b.refs++
	return nil
}

// release drops a reference and zeroes the block with the last one.
func (s *Store) release(off int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unref(off)
}

func (s *Store) unref(off int) {
	i, ok := s.find(off)
	if !ok {
		return
	}
	b := &s.blocks[i]
	if b.refs--; b.refs == 0 {
		clear(s.mem.bytes[b.off : b.off+b.n])
		s.blocks = slices.Delete(s.blocks, i, i+1)
	}
}

// find returns the index of the block at off. The caller holds mu.
func (s *Store) find(off int) (int, bool) {
	return slices.BinarySearchFunc(s.blocks, off, func(b block, off int) int { return b.off - off })
}
