package proxy

import (
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/secret"
)

// holdLimit is the length up to which a response is held, so that its
// Content-Length can be measured after scrubbing. API answers are shorter;
// downloads are not and are overwritten in place.
const holdLimit = 1 << 20

// respond sends the upstream's answer to the guest.
func (q *request) respond(w http.ResponseWriter, resp *http.Response) {
	scrub := q.scrubber()
	if scrub != nil && q.sealed() && !readable(resp) {
		no := refused(policy.Unscannable)
		no.last = true // what is not read ends the upstream's connection
		q.refuse(w, no)
		return
	}
	h := w.Header()
	copyHeader(h, q.answerHeader(resp, scrub))
	if resp.Close {
		h.Set("Connection", "close")
	}
	if scrub == nil || !hasBody(q.in.Method, resp) {
		q.send(w, resp, resp.Body, scrub)
		return
	}
	if kind := grpcOf(resp.Header); kind != noGRPC {
		q.respondGRPC(w, resp, kind, scrub)
	} else if n := resp.ContentLength; n < 0 {
		q.send(w, resp, scrub.Reader(resp.Body, false, q.scrubbed), scrub)
	} else if n > holdLimit || !q.held.Take(n) {
		q.send(w, resp, scrub.Reader(resp.Body, true, q.scrubbed), scrub)
	} else {
		defer q.held.Give(n)
		whole, err := io.ReadAll(scrub.Reader(resp.Body, false, q.scrubbed))
		if err != nil {
			q.failed(w, err)
			return
		}
		h.Set("Content-Length", strconv.Itoa(len(whole)))
		q.send(w, resp, bytes.NewReader(whole), scrub)
	}
}

// scrubber is what searches the answer; nil if its host is not a secret's.
func (q *request) scrubber() *rewrite.Scrubber {
	if !q.searched() {
		return nil
	}
	return q.rules.scrubber
}

// readable reports whether values would be found in the body of resp.
func readable(resp *http.Response) bool {
	for _, v := range resp.Header["Content-Encoding"] {
		if v = strings.TrimSpace(v); v != "" && !strings.EqualFold(v, "identity") {
			return false
		}
	}
	// Nobody asked for a slice, whose ends may cut a value in two.
	return resp.StatusCode != http.StatusPartialContent
}

// hasBody reports whether bytes follow the head of resp, RFC 9112 §6.3.
func hasBody(method string, resp *http.Response) bool {
	switch {
	case method == http.MethodHead, resp.StatusCode == http.StatusNoContent, resp.StatusCode == http.StatusNotModified:
		return false
	}
	return resp.ContentLength != 0
}

// answerHeader is the header that the guest gets.
func (q *request) answerHeader(resp *http.Response, scrub *rewrite.Scrubber) http.Header {
	h := forwardable(resp.Header)
	delete(h, "Te")
	delete(h, "Alt-Svc") // the way to a server that nobody judged
	if scrub != nil {
		if grpcOf(h) != noGRPC {
			q.scrubGRPC(h, scrub)
		}
		scrub.Header(h, q.scrubbed)
	}
	for _, name := range []string{"Date", "Content-Type"} {
		if _, ok := h[name]; !ok {
			h[name] = nil // else net/http's server makes one up
		}
	}
	if scrub != nil {
		scrub.Header(resp.Trailer, q.scrubbed) // names, so far
	}
	for name := range resp.Trailer {
		h.Add("Trailer", name)
	}
	return h
}

// send writes the head, body and trailers. From here on a failure can only be
// shown by not ending the message.
func (q *request) send(w http.ResponseWriter, resp *http.Response, body io.Reader, scrub *rewrite.Scrubber) {
	announced := len(resp.Trailer)
	w.WriteHeader(resp.StatusCode)
	if hasBody(q.in.Method, resp) {
		var err error
		if resp.ContentLength < 0 {
			err = copyLive(w, body)
		} else {
			err = copyBody(w, body)
		}
		if err != nil {
			q.breakOff(w, err)
			return
		}
	}
	if q.body.incomplete() {
		panic(http.ErrAbortHandler) // the server may have ended its answer for that
	}
	if len(resp.Trailer) == 0 {
		return
	}
	if scrub != nil {
		if grpcOf(resp.Header) != noGRPC {
			q.scrubGRPC(resp.Trailer, scrub)
		}
		scrub.Header(resp.Trailer, q.scrubbed)
	}
	http.NewResponseController(w).Flush() // so that the message is chunked
	for name, values := range resp.Trailer {
		if len(resp.Trailer) != announced {
			name = http.TrailerPrefix + name
		}
		w.Header()[name] = values
	}
}

// copyBuffers hold what io.Copy would allocate for every body.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func copyBody(w http.ResponseWriter, body io.Reader) error {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	_, err := io.CopyBuffer(writerOnly{w}, body, buf[:])
	return err
}

// copyLive passes every piece on as it comes: the length is unknown, so it
// may be a conversation.
func copyLive(w http.ResponseWriter, body io.Reader) error {
	control := http.NewResponseController(w)
	if err := control.Flush(); err != nil {
		return err
	}
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := control.Flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// writerOnly hides ReadFrom, which would allocate a buffer of its own.
type writerOnly struct{ io.Writer }

// scrubbed records that a value was taken out of the answer, once for each
// secret. s is nil where it is not known which one it was.
func (q *request) scrubbed(s *secret.Secret) {
	name := ""
	if s != nil {
		name = s.Name
	}
	for _, t := range q.scrubs {
		if t == name {
			return
		}
	}
	q.scrubs = append(q.scrubs, name)
	e := q.event(audit.Scrubbed)
	e.Secret = name
	q.audit(e)
}

func copyHeader(dst, src http.Header) {
	for name, values := range src {
		dst[name] = values
	}
}

// An interim passes 1xx answers on while the final one is waited for.
type interim struct {
	q *request

	mu sync.Mutex
	w  http.ResponseWriter // nil once the final answer is there
}

// send is called by net/http's client, in a goroutine of its own. 100 is not
// passed on: the guest gets its own when its body is asked for.
func (i *interim) send(code int, header textproto.MIMEHeader) error {
	if code == http.StatusContinue {
		return nil
	}
	if i.q.in.ProtoMajor == 1 && i.q.in.Header["Expect"] != nil {
		// The server may be writing its 100 just now, in another goroutine
		// and without a lock against this one.
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.w == nil {
		return nil
	}
	h := forwardable(http.Header(header))
	delete(h, "Alt-Svc")
	if scrub := i.q.scrubber(); scrub != nil {
		scrub.Header(h, i.q.scrubbed)
	}
	copyHeader(i.w.Header(), h)
	i.w.WriteHeader(code)
	clear(i.w.Header())
	return nil
}

func (i *interim) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.w = nil
}
