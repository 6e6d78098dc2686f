package reframe

import (
	"fmt"
	"net/http"

	"github.com/cutoutdev/cutout/internal/policy"
)

// A Fault is what is wrong with a request. Its text is complete and contains
// nothing of the request.
type Fault string

// The faults.
const (
	BadLineEnd       Fault = "a line does not end in CR LF"
	EmptyLine        Fault = "an empty line stands before the request"
	BadRequestLine   Fault = "the request line is not \"METHOD TARGET HTTP/1.x\""
	BadMethod        Fault = "the method is not a token or too long"
	BadTarget        Fault = "the request target is neither a path nor an http URL"
	BadVersion       Fault = "the version is neither HTTP/1.1 nor HTTP/1.0"
	ConnectMethod    Fault = "CONNECT is not served here"
	FoldedLine       Fault = "a header line is folded"
	BadFieldName     Fault = "a header name is not a token directly before its colon"
	BadFieldValue    Fault = "a header value contains a control character"
	NoHost           Fault = "there is no Host, or an empty one"
	TwoHosts         Fault = "there are two Host fields"
	BadHost          Fault = "the Host field contains a character that no host has"
	TwoLengths       Fault = "there are two Content-Length fields"
	BadLength        Fault = "the Content-Length is not a number"
	TwoFramings      Fault = "there is a Content-Length beside a Transfer-Encoding"
	BadCoding        Fault = "the Transfer-Encoding is not exactly one \"chunked\""
	HTTP2Upgrade     Fault = "the request asks for HTTP/2 in cleartext"
	BadExpect        Fault = "the expectation is not 100-continue"
	BadTrailerField  Fault = "a field of framing or routing stands in the trailers"
	BadChunk         Fault = "a chunk is not framed by its size in hexadecimal digits and CR LF"
	LineTooLong      Fault = "a line is too long"
	HeadTooLarge     Fault = "the header section is too large"
	TooManyFields    Fault = "there are too many header fields"
	TrailersTooLarge Fault = "the trailer section is too large"
	HeadTooSlow      Fault = "the header section did not come in time"
)

// A Reject is a request, or the rest of one, that was refused.
type Reject struct {
	Fault  Fault
	InBody bool // the head had been handed on

	// What was read before the fault; "" if it did not get that far. All of
	// it is the guest's text, to be escaped where it is printed.
	Method, Target, Host string
}

// Status is the HTTP status that answers r.
func (r Reject) Status() int {
	switch r.Fault {
	case LineTooLong, HeadTooLarge, TooManyFields, TrailersTooLarge:
		return http.StatusRequestHeaderFieldsTooLarge
	case BadExpect:
		return http.StatusExpectationFailed
	case ConnectMethod:
		return http.StatusForbidden
	case HeadTooSlow:
		return http.StatusRequestTimeout
	}
	return http.StatusBadRequest
}

// Reason is why r was refused, in the words of all refusals.
func (r Reject) Reason() policy.Reason {
	if r.Fault == ConnectMethod {
		return policy.Tunnelled
	}
	return policy.MalformedRequest
}

// An Error is what reading a body gives when the rest of it is refused.
type Error struct{ Reject Reject }

func (e *Error) Error() string { return "read request: " + string(e.Reject.Fault) }

// answer is the default for Config.Answer.
func answer(r Reject) []byte {
	body := fmt.Sprintf("{\"type\":\"about:blank\",\"title\":%q,\"status\":%d,\"reason\":%q,\"detail\":%q,\"hint\":%q}\n",
		r.Reason().What(), r.Status(), r.Reason(), r.Fault, r.Reason().Hint())
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n%s",
		r.Status(), http.StatusText(r.Status()), len(body), body)
}
