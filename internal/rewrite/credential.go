package rewrite

import (
	"net/textproto"
	"slices"
	"strings"
)

// credentialHeaders is the reviewed list of headers that carry a credential
// and that no known API stores or gives back, DESIGN §4. Adding one is a
// security decision: a header that an API keeps (metadata, titles, audit
// notes) is a way out for the value through the allowed host.
var credentialHeaders = map[string]bool{
	"Authorization":  true,
	"X-Api-Key":      true,
	"Api-Key":        true,
	"X-Auth-Token":   true,
	"X-Access-Token": true,
	"Private-Token":  true,
	"X-Goog-Api-Key": true,
	"X-Vault-Token":  true,
}

// credentialSuffixes end the names of the credential headers of many more
// services.
var credentialSuffixes = []string{"-Authorization", "-Api-Key", "-Auth-Token", "-Access-Token"}

// notCredential are parts of names that no suffix makes up for: what an
// object store keeps as metadata and gives back (X-Amz-Meta-Api-Key), and
// what one proxy tells the next.
var notCredential = []string{"-Meta-", "X-Forwarded-"}

// byName are headers that header:* does not cover. Servers log them, pages
// show them and other servers get them.
var byName = map[string]bool{
	"Cookie":     true,
	"Referer":    true,
	"User-Agent": true,
	"Forwarded":  true,
	"Via":        true,
}

// never are headers that no surface covers: those of one hop, which end
// here, and those that say how the message is read or whom it is for.
var never = map[string]bool{
	"Host":                true,
	"Connection":          true,
	"Keep-Alive":          true,
	"Proxy-Connection":    true,
	"Proxy-Authenticate":  true,
	"Proxy-Authorization": true,
	"Te":                  true,
	"Trailer":             true,
	"Transfer-Encoding":   true,
	"Upgrade":             true,
	"Content-Length":      true,
	"Content-Type":        true,
	"Content-Encoding":    true,
	"Expect":              true,
	"Accept-Encoding":     true,
	"Range":               true,
	"If-Range":            true,
}

// CredentialHeader reports whether the field name, in any case, is one that
// carries a credential: values may be written there by default. It never is
// Proxy-Authorization, which is not for the upstream.
func CredentialHeader(name string) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case never[name]:
		return false
	case credentialHeaders[name]:
		return true
	}
	in := func(part string) bool { return strings.Contains(name, part) }
	ends := func(suffix string) bool { return strings.HasSuffix(name, suffix) }
	return slices.ContainsFunc(credentialSuffixes, ends) && !slices.ContainsFunc(notCredential, in)
}

// Unnamed reports whether no surface can name the header, in any case.
func Unnamed(name string) bool { return never[textproto.CanonicalMIMEHeaderKey(name)] }

// Allowed reports whether o stands on one of its secret's surfaces, DESIGN
// §4. For a body that is whether any part of it may hold a value.
func Allowed(o Occurrence) bool {
	s := o.Secret.Allowed()
	switch o.Position {
	case Basic:
		return s.Basic
	case Header:
		return allowedHeader(textproto.CanonicalMIMEHeaderKey(o.Field), s.Header, s.Headers)
	case Query:
		return s.Query
	case Path:
		return s.Path
	case InBody:
		return len(s.Body) > 0
	}
	return false
}

func allowedHeader(name string, credential bool, named []string) bool {
	switch {
	case never[name]:
		return false
	case credential && CredentialHeader(name), slices.Contains(named, name):
		return true
	}
	return slices.Contains(named, "*") && !byName[name] && !strings.HasPrefix(name, "X-Forwarded-")
}
