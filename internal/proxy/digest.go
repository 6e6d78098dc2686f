package proxy

import (
	"net/http"
	"strings"
)

// digests are the fields that say what bytes the body has; a suffix after an
// asterisk.
var digests = []string{
	"Content-Md5", "Content-Digest", "Repr-Digest", "Digest",
	"*-Md5", "*-Sha256", "*-Crc64", // x-amz-content-sha256, x-goog-content-sha256, x-ms-blob-content-md5, x-content-sha256
	"*-Hash",                         // x-goog-hash
	"*-Signature", "*-Signature-256", // of webhooks
	"X-Amz-Checksum-*", "X-Amz-Trailer", // one of S3's, before or behind the body
	"X-Signature-Ed25519", "X-Body-Digest",
}

// answerDigests are those of an answer, contentDigests those of just the slice
// that it has.
var (
	contentDigests = []string{"Content-Md5", "Content-Digest"}
	answerDigests  = append([]string{
		"Repr-Digest", "Digest",
		"X-Amz-Checksum-*", "X-Goog-Hash", "X-Ms-Blob-Content-Md5",
	}, contentDigests...)
)

// dropDigests removes digests from an answer that no longer has the bytes that
// it had, or not in its coding.
func dropDigests(h http.Header, list []string) {
	for name := range h {
		if listed(list, name) {
			delete(h, name)
		}
	}
}

// signedBody reports whether a request's head carries a digest or signature
// over its body, or announces one behind it. Such a body is never changed.
func signedBody(h, trailer http.Header) bool {
	for _, fields := range []http.Header{h, trailer} {
		for name, values := range fields {
			if listed(digests, http.CanonicalHeaderKey(name)) && !unsigned(values) {
				return true
			}
		}
	}
	for _, v := range h["Signature-Input"] { // RFC 9421 §2
		v = strings.ToLower(v)
		if strings.Contains(v, `"content-digest"`) || strings.Contains(v, `"repr-digest"`) || strings.Contains(v, `"digest"`) {
			return true
		}
	}
	for _, v := range h["Authorization"] {
		if signedBy(strings.ToLower(v)) && !unsigned(h["X-Amz-Content-Sha256"]) {
			return true
		}
	}
	return false
}

// listed reports whether name is in list, whose entries may begin or end with
// an asterisk.
func listed(list []string, name string) bool {
	for _, d := range list {
		if suffix, ok := strings.CutPrefix(d, "*"); ok && strings.HasSuffix(name, suffix) {
			return true
		}
		if prefix, ok := strings.CutSuffix(d, "*"); ok && strings.HasPrefix(name, prefix) {
			return true
		}
		if name == d {
			return true
		}
	}
	return false
}

// unsigned reports whether a field says that there is no digest.
func unsigned(values []string) bool {
	return len(values) == 1 && strings.EqualFold(values[0], "UNSIGNED-PAYLOAD")
}

// signedBy reports whether credentials, in lower case, depend on the body.
func signedBy(credentials string) bool {
	scheme, rest, _ := strings.Cut(credentials, " ")
	switch {
	case strings.HasPrefix(scheme, "aws4-"):
		return true // always over a hash of the payload
	case scheme == "oauth":
		return strings.Contains(rest, "oauth_body_hash")
	case scheme == "hawk":
		return strings.Contains(rest, "hash=")
	case scheme == "signature":
		return strings.Contains(rest, "digest")
	}
	return false
}
