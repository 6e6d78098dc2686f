package proxy

import "sync/atomic"

// heldLimit is the byte budget of a sandbox, DESIGN §7: what all of its
// connections together hold of bodies and for decoders. Full, it makes one
// body wait on disk or be refused; it never makes another sandbox wait.
const heldLimit = 192 << 20

// A budget is a number of bytes that may be held at once. It is used from
// many goroutines.
type budget struct {
	limit int64
	used  atomic.Int64
}

// Take reports whether n bytes were free, and takes them.
func (b *budget) Take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

// Give returns n bytes.
func (b *budget) Give(n int64) { b.used.Add(-n) }

// maxFrame is the room that net/http's client takes to make DATA frames in for
// every body that goes up over HTTP/2, if the server admits frames of that
// size, as most do.
const maxFrame = 512 << 10

// frameRoom is what the request's body takes for that.
func (q *request) frameRoom() int64 {
	switch n := q.in.ContentLength; {
	case q.in.ProtoMajor != 2: // as upstream
		return 0
	case n < 0:
		return maxFrame
	default:
		return min(n, maxFrame)
	}
}
