package proxy

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/rewrite"
)

// A grpcKind is which of gRPC's protocols a message speaks.
type grpcKind uint8

const (
	noGRPC      grpcKind = iota
	grpcBinary           // application/grpc and application/grpc-web: length-prefixed messages
	grpcWebText          // application/grpc-web-text: the same in Base64
)

// grpcOf tells it from the Content-Type.
func grpcOf(h http.Header) grpcKind {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	kind, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(kind)), "+")
	switch kind {
	case "application/grpc", "application/grpc-web":
		return grpcBinary
	case "application/grpc-web-text":
		return grpcWebText
	}
	return noGRPC
}

// The status codes of gRPC that a refusal can have. UNAVAILABLE is for what
// may pass by itself: clients try again.
const (
	grpcInvalidArgument    = 3
	grpcPermissionDenied   = 7
	grpcResourceExhausted  = 8
	grpcFailedPrecondition = 9
	grpcUnavailable        = 14
)

func grpcCode(r policy.Reason) int {
	switch r {
	case policy.MalformedRequest, policy.TooMany:
		return grpcInvalidArgument
	case policy.LimitReached, policy.BodyTooLarge:
		return grpcResourceExhausted
	case policy.UpstreamFailed, policy.ProxyFailed:
		return grpcUnavailable
	case policy.BodyIsSigned, policy.NeedsEqualLength, policy.UnknownCoding, policy.Unsafe, policy.Unscannable, policy.AuditUnavailable:
		return grpcFailedPrecondition
	}
	return grpcPermissionDenied
}

// refuseGRPC puts the refusal into h as gRPC has it: status 200 and no body,
// only the trailers, which then stand in the head.
func (q *request) refuseGRPC(h http.Header, r *refusal) {
	h["Content-Type"] = q.in.Header["Content-Type"]
	h["Content-Length"] = nil
	for name, values := range grpcStatus(r) {
		h[name] = values
	}
}

// grpcStatus are the trailers of a refusal.
func grpcStatus(r *refusal) http.Header {
	text := r.Error()
	if r.detail != "" {
		text += " (" + r.detail + ")"
	}
	return http.Header{"Grpc-Status": {strconv.Itoa(grpcCode(r.reason))}, "Grpc-Message": {grpcEscape(text)}}
}

// grpcEscape is the percent-encoding of grpc-message.
func grpcEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// grpcUnescape decodes grpc-message; what is not well-formed stays as it is.
func grpcUnescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

// binaryMetadata finds placeholders in the decoded values of "-bin" metadata
// of a gRPC request. Nothing is ever substituted there: what the bytes mean,
// and whether lengths are among them, nobody knows.
func (q *request) binaryMetadata() []rewrite.Occurrence {
	if grpcOf(q.in.Header) == noGRPC {
		return nil
	}
	plain := make(http.Header)
	for name, values := range q.in.Header {
		if !strings.HasSuffix(name, "-Bin") {
			continue
		}
		for _, v := range values {
			for part := range strings.SplitSeq(v, ",") {
				if b, ok := decodeBin(part); ok {
					plain[name] = append(plain[name], string(b))
				}
			}
		}
	}
	if len(plain) == 0 {
		return nil
	}
	var found []rewrite.Occurrence
	for _, o := range q.rules.finder.Head("", "", "", plain) {
		if o.Position == rewrite.Header || o.Position == rewrite.Basic {
			found = append(found, o)
		}
	}
	return found
}

// judgeBinary decides about a placeholder in such metadata.
func (q *request) judgeBinary(o rewrite.Occurrence) *refusal {
	if d := policy.Decide(q.facts, o.Secret); !d.Substitute {
		return q.violation(o, d.Reason)
	}
	r := refused(policy.SurfaceOff)
	r.detail = "it stands in the binary metadata " + strings.ToLower(o.Field)
	return r
}

// decodeBin decodes one value of "-bin" metadata, padded or not.
func decodeBin(v string) ([]byte, bool) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(v), "="))
	return b, err == nil
}

// scrubGRPC takes values out of what gRPC encodes in metadata and trailers: in
// "-bin" fields a value is overwritten in place, since lengths stand there.
// All else is searched like any header.
func (q *request) scrubGRPC(h http.Header, scrub *rewrite.Scrubber) {
	for name, values := range h {
		for i, v := range values {
			switch {
			case strings.HasSuffix(name, "-Bin"):
				values[i] = q.scrubBin(v, scrub)
			case name == "Grpc-Message":
				if clean, n := scrub.String(grpcUnescape(v), q.scrubbed); n > 0 {
					values[i] = grpcEscape(clean)
				}
			}
		}
	}
}

func (q *request) scrubBin(v string, scrub *rewrite.Scrubber) string {
	parts := strings.Split(v, ",")
	for i, part := range parts {
		b, ok := decodeBin(part)
		if !ok {
			continue
		}
		if scrub.Bytes(b) > 0 {
			parts[i] = base64.RawStdEncoding.EncodeToString(b)
			q.scrubbed(nil)
		}
	}
	return strings.Join(parts, ",")
}
