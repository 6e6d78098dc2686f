package audit

import (
	"encoding/hex"
	"fmt"
	"os"
	"time"
)

// A log goes on in another file when one is full: path is the newest, path.1
// the one before. The oldest of more than maxFiles is given up. Each but the
// first begins with a line that says what came before, so that the chain
// holds over files, and what is gone is told.
const maxFiles = 4

// fileAt is the name of a log's i-th newest file.
func fileAt(path string, i int) string {
	if i == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, i)
}

// rotate begins a file. If that fails everything is as before.
func (l *Log) rotate(now time.Time) error {
	next := l.path + ".new"
	f, err := createFile(next)
	if err != nil {
		return err
	}
	line, head, err := chained(l.head, Event{Time: now, Event: Lifecycle, Detail: "continued", Count: l.lines, Previous: hex.EncodeToString(l.head[:])})
	if err == nil {
		_, err = f.Write(line)
	}
	for i := maxFiles - 2; i >= 0 && err == nil; i-- {
		if err = os.Rename(fileAt(l.path, i), fileAt(l.path, i+1)); os.IsNotExist(err) && i > 0 {
			err = nil
		}
	}
	if err == nil {
		err = os.Rename(next, l.path)
	}
	if err != nil {
		f.Close()
		os.Remove(next)
		return err
	}
	l.file.Close()
	l.file, l.size, l.head, l.lines = f, int64(len(line)), head, l.lines+1
	return nil
}
