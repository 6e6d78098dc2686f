package audit

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

	// MaxBytes is how large the log may grow; 0 = 256 MiB, over a million
	// events. A full log fails as a full disk does.
	MaxBytes int64
}

const (
	defaultMaxBytes = 256 << 20
	// maxText bounds each text that a guest can choose; JSON makes up to six
	// bytes of one, and an event must fit into 64 KiB.
	maxText = 1 << 10
)

// A Log is the audit log of one sandbox. Its methods may be called from
// several goroutines.
type Log struct {
	cfg Config

	mu     sync.Mutex
	file   *os.File // nil once closed
	size   int64
	key    [32]byte // of the chain; dies with the keeper
	head   [sha256.Size]byte
	failed error // the first failure to write; final
	bounds coalescer
}

// Create opens a new log at path, which must not exist, mode 0600.
func Create(path string, cfg Config) (*Log, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create audit log: %w", err)
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	l := &Log{cfg: cfg, file: f}
	rand.Read(l.key[:])
	return l, nil
}

// Append writes e, or counts it if many like it were just written. Once a
// write has failed every later one fails too: the caller must then stop
// substituting.
func (l *Log) Append(e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
		return l.failed
	case l.file == nil:
		return errors.New("audit log is closed")
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	for _, text := range []*string{&e.Surface, &e.Host, &e.Dst, &e.Method, &e.Path, &e.Detail} {
		*text = clip(*text)
	}
	if e.coalesced() && l.bounds.take(e, l.flush) {
		return nil
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
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode audit event: %w", err)
	}
	mac := hmac.New(sha256.New, l.key[:])
	mac.Write(l.head[:])
	mac.Write(body)
	mac.Sum(l.head[:0])

	// The chain value goes in as the last member, so that the line without
	// it is byte for byte what was hashed.
	out := append(body[:len(body)-1], `,"chain":"`...)
	out = hex.AppendEncode(out, l.head[:])
	out = append(out, "\"}\n"...)
	if l.size += int64(len(out)); l.cfg.MaxBytes > 0 && l.size > l.cfg.MaxBytes {
		l.failed = errors.New("the audit log is full")
		return l.failed
	}
	if _, err := l.file.Write(out); err != nil {
		l.failed = fmt.Errorf("write audit log: %w", err)
		return l.failed
	}
	if l.cfg.Notify != nil {
		l.cfg.Notify(e)
	}
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
