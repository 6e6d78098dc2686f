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

// CredentialHeader reports whether the field name, in any case, is one that
// carries a credential: values may be written there by default. It never is
// Proxy-Authorization, which is not for the upstream.
func CredentialHeader(name string) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case name == "Proxy-Authorization":
		return false
	case credentialHeaders[name]:
		return true
	}
	in := func(part string) bool { return strings.Contains(name, part) }
	ends := func(suffix string) bool { return strings.HasSuffix(name, suffix) }
	return slices.ContainsFunc(credentialSuffixes, ends) && !slices.ContainsFunc(notCredential, in)
}
