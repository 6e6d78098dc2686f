package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// Config is how a log is kept. The zero Config is usable.
type Config struct {
	// Notify is told every event after it was written, in order, without
	// the log's lock being given up: it must be quick and must not append.
	Notify func(Event)

	// Observe is told every event as it comes, before equal ones are counted
	// and whether or not it can be written. It may be called from several
	// goroutines, and must be quick.
	Observe func(Event)

	// MaxBytes is how large a file may grow before the log goes on in another;
	// 0 = 64 MiB, some 300,000 events.
	MaxBytes int64

	// BestEffort has Append succeed though nothing can be written. What is
	// lost is counted, and told when it can be.
	BestEffort bool
}

const (
	defaultMaxBytes = 64 << 20
	// maxText bounds each text that a guest can choose; JSON makes up to six
	// bytes of one, and an event must fit into 64 KiB.
	maxText = 1 << 10
)

// A Log is the audit log of one sandbox. Its methods may be called from
// several goroutines.
type Log struct {
	cfg  Config
	path string

	mu     sync.Mutex
	file   *os.File // nil once closed
	ended  bool     // the last line is there
	size   int64    // of file
	lines  int      // of all files, those that are gone too
	head   [sha256.Size]byte
	lost   int   // events, under BestEffort
	failed error // the first failure to write; final
	bounds coalescer
}

// Create opens a new log at path, which must not exist, mode 0600.
func Create(path string, cfg Config) (*Log, error) {
	f, err := createFile(path)
	if err != nil {
		return nil, fmt.Errorf("create audit log: %w", err)
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	return &Log{cfg: cfg, path: path, file: f}, nil
}

func createFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
}

// Append writes e, or counts it if many like it were just written. Once a
// write has failed every later one fails too, unless it is best effort: the
// caller must then stop substituting.
func (l *Log) Append(e Event) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	for _, text := range []*string{&e.Surface, &e.Host, &e.Dst, &e.Method, &e.Path, &e.Detail} {
		*text = clip(*text)
	}
	if l.cfg.Observe != nil {
		l.cfg.Observe(e)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
		return l.failed
	case l.file == nil || l.ended:
		return errors.New("audit log is closed")
	}
	if e.coalesced() && l.bounds.take(e, l.flush) {
		return nil
	}
	if e.Event == Lifecycle { // what came before a step is told before it, and nothing after the end
		if l.release(); l.failed != nil {
			return l.failed
		}
		l.ended = e.Detail == Ended
	}
	return l.write(e)
}

// flush writes what was held back.
func (l *Log) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.release()
}

func (l *Log) release() {
	for _, e := range l.bounds.release() {
		if l.failed == nil && l.file != nil {
			l.write(e)
		}
	}
}

// write adds a line. l.mu is held.
func (l *Log) write(e Event) error {
	if l.lost > 0 {
		lost := Event{Time: e.Time, Event: Lifecycle, Detail: "lost: events that could not be written", Count: l.lost}
		if l.add(lost) != nil {
			l.lost += max(e.Count, 1)
			return nil
		}
		l.lost = 0
	}
	switch err := l.add(e); {
	case err == nil:
	case l.cfg.BestEffort:
		l.lost += max(e.Count, 1)
		return nil
	default:
		l.failed = fmt.Errorf("write audit log: %w", err)
		return l.failed
	}
	if l.cfg.Notify != nil {
		l.cfg.Notify(e)
	}
	return nil
}

// add writes one line, in another file if this one is full. It is there as a
// whole or not at all.
func (l *Log) add(e Event) error {
	line, head, err := chained(l.head, e)
	if err != nil {
		return err
	}
	if l.cfg.MaxBytes > 0 && l.size > 0 && l.size+int64(len(line)) > l.cfg.MaxBytes {
		if err := l.rotate(e.Time); err != nil {
			return err
		}
		if line, head, err = chained(l.head, e); err != nil {
			return err
		}
	}
	if _, err := l.file.Write(line); err != nil {
		l.file.Truncate(l.size) // what was written of it
		return err
	}
	l.size, l.head, l.lines = l.size+int64(len(line)), head, l.lines+1
	return nil
}

// clip cuts a long text and shows that it did.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// Failed returns the error that ended the log, or nil.
func (l *Log) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Head returns the chain value of the last line, in hex.
func (l *Log) Head() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return hex.EncodeToString(l.head[:])
}

// Lines returns how many lines were written.
func (l *Log) Lines() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}

// Close ends the log. Later appends fail.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	l.release()
	err := l.file.Close()
	l.file = nil
	return err
}
