package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"sync"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/secret"
)

// holdLimit is the length up to which a response is held, so that its
// Content-Length can be measured after scrubbing. API answers are shorter;
// downloads are not and are overwritten in place.
const holdLimit = 1 << 20

// A response is the upstream's answer on its way to the guest.
type response struct {
	*request
	resp  *http.Response
	scrub *rewrite.Scrubber // nil: it is not searched
	coded *decodedBody      // its body, if it was coded
	cut   *cut              // of a slice; nil: it goes on whole
	fixed bool              // values in its body are overwritten in place
	hits  int               // values found in its body
}

// respond sends the upstream's answer to the guest.
func (q *request) respond(w http.ResponseWriter, resp *http.Response) {
	r := &response{request: q, resp: resp, scrub: q.scrubber()}
	length := resp.ContentLength // as it comes, coded or not
	if r.scrub != nil {
		if no := r.open(); no != nil {
			no.last = true // what is not read ends the upstream's connection
			q.refuse(w, no)
			return
		}
		defer r.close()
	}
	r.head(w)
	kind := grpcOf(resp.Header)
	switch {
	case r.scrub == nil || !r.hasBody():
		r.send(w, resp.Body)
	case kind != noGRPC && r.cut == nil:
		r.sendGRPC(w, kind)
	case length >= 0 && length <= holdLimit && r.hold(w, length):
	default:
		// A length that was announced stays as it is.
		r.fixed = r.fixed || resp.ContentLength >= 0
		r.send(w, r.clean())
	}
}

// clean is the body without values.
func (r *response) clean() io.Reader {
	found := func(s *secret.Secret) {
		r.hits++
		r.scrubbed(s)
	}
	if c := r.cut; c != nil {
		return &cutReader{r.scrub.Reader(&exactReader{r.resp.Body, c.got}, true, found), *c}
	}
	return r.scrub.Reader(r.resp.Body, r.fixed, found)
}

// hold reads the body, which comes in length bytes, to its end, measures and
// sends it. False: there is no room for it. One that grows beyond the room
// goes on without a length.
func (r *response) hold(w http.ResponseWriter, length int64) bool {
	room := 2*length + 4<<10 // placeholders may be longer than values
	if r.coded != nil {
		room = holdLimit
	}
	if !r.held.Take(room) {
		return false
	}
	defer r.held.Give(room)
	body := r.clean()
	whole, err := io.ReadAll(io.LimitReader(body, room))
	if no := new(refusal); errors.As(err, &no) && !r.body.incomplete() {
		no.last = true
		r.refuse(w, no)
		return true
	} else if err != nil {
		r.failed(w, err)
		return true
	}
	if r.hits > 0 {
		dropDigests(w.Header(), answerDigests)
	}
	if int64(len(whole)) == room {
		r.resp.ContentLength = -1
		w.Header().Del("Content-Length")
		r.send(w, io.MultiReader(bytes.NewReader(whole), body))
		return true
	}
	r.resp.ContentLength = int64(len(whole))
	w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
	r.send(w, bytes.NewReader(whole))
	return true
}

// hasBody reports whether bytes follow the head, RFC 9112 §6.3.
func (r *response) hasBody() bool {
	switch {
	case r.in.Method == http.MethodHead, r.resp.StatusCode == http.StatusNoContent, r.resp.StatusCode == http.StatusNotModified:
		return false
	}
	return r.resp.ContentLength != 0
}

// head puts the header that the guest gets into that of w.
func (r *response) head(w http.ResponseWriter) {
	copyHeader(w.Header(), r.header())
	if r.resp.Close {
		w.Header().Set("Connection", "close")
	}
}

func (r *response) header() http.Header {
	h := forwardable(r.resp.Header)
	delete(h, "Te")
	delete(h, "Alt-Svc") // the way to a server that nobody judged
	if r.scrub != nil {
		if grpcOf(h) != noGRPC {
			r.scrubGRPC(h, r.scrub)
		}
		r.scrub.Header(h, r.scrubbed)
	}
	for _, name := range []string{"Date", "Content-Type"} {
		if _, ok := h[name]; !ok {
			h[name] = nil // else net/http's server makes one up
		}
	}
	r.scrubTrailer() // names, so far
	for name := range r.resp.Trailer {
		h.Add("Trailer", name)
	}
	return h
}

func (r *response) scrubTrailer() {
	if r.scrub == nil {
		return
	}
	if grpcOf(r.resp.Header) != noGRPC {
		r.scrubGRPC(r.resp.Trailer, r.scrub)
	}
	r.scrub.Header(r.resp.Trailer, r.scrubbed)
	switch {
	case r.coded != nil || r.hits > 0:
		dropDigests(r.resp.Trailer, answerDigests)
	case r.cut != nil:
		dropDigests(r.resp.Trailer, contentDigests)
	}
}

// send writes the head, body and trailers. From here on a failure can only be
// shown by not ending the message.
func (r *response) send(w http.ResponseWriter, body io.Reader) {
	announced := len(r.resp.Trailer)
	w.WriteHeader(r.resp.StatusCode)
	if r.hasBody() {
		var err error
		if r.resp.ContentLength < 0 {
			err = copyLive(w, body)
		} else {
			err = copyBody(w, body)
		}
		if err != nil {
			r.breakOff(w, err)
			return
		}
	}
	if r.body.incomplete() {
		panic(http.ErrAbortHandler) // the server may have ended its answer for that
	}
	r.scrubTrailer()
	if len(r.resp.Trailer) == 0 {
		return
	}
	http.NewResponseController(w).Flush() // so that the message is chunked
	for name, values := range r.resp.Trailer {
		if len(r.resp.Trailer) != announced {
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
	q.touch()
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
