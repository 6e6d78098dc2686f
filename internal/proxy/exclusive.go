package proxy

import (
	"encoding/base64"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/rewrite"
	"github.com/cutoutdev/cutout/internal/secret"
)

// credentialParameters are query parameters that APIs take credentials from,
// in lower case.
var credentialParameters = []string{
	"access_token", "api-key", "api_key", "apikey", "auth", "client_secret", "key", "oauth_token", "password",
	"private_token", "sig", "signature", "subscription-key", "token", "x-amz-security-token", "x-amz-signature", "x-goog-signature",
}

// foreign refuses a request that carries a credential of the guest's own to a
// host of an exclusive secret: with the attacker's own key the allowed host
// is a place to take data to. A session cookie is one too. Bodies are not
// looked into, nor the user name beside a password.
func (q *request) foreign() *refusal {
	var own []*secret.Secret
	for _, s := range q.rules.set.ForHost(q.host()) {
		if s.Exclusive {
			own = append(own, s)
		}
	}
	if len(own) == 0 {
		return nil
	}
	no := func(where string) *refusal {
		r := refused(policy.ForeignCredential)
		r.detail = "it stands in the " + where
		return r
	}
	for name, values := range q.in.Header {
		if !carriesCredential(own, name) {
			continue
		}
		for _, v := range values {
			if !ownCredential(own, v) {
				return no("header " + textproto.CanonicalMIMEHeaderKey(name))
			}
		}
	}
	_, query, _ := strings.Cut(q.target, "?")
	for p := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(p, "=")
		name, value = decoded(name), decoded(value)
		if slices.Contains(credentialParameters, strings.ToLower(name)) && !isPlaceholder(own, value) {
			return no("query")
		}
	}
	return nil
}

// carriesCredential reports whether the field is one that servers take
// credentials from, in general or by the word of one of own.
func carriesCredential(own []*secret.Secret, name string) bool {
	// CGI and its kin read X_Api_Key as X-Api-Key.
	name = textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return name == "Cookie" || rewrite.CredentialHeader(name) || slices.ContainsFunc(own, func(s *secret.Secret) bool {
		return slices.Contains(s.Allowed().Headers, name)
	})
}

// ownCredential reports whether a field's value is a placeholder and nothing
// else: alone, behind a scheme, or as a part of Basic credentials.
func ownCredential(own []*secret.Secret, value string) bool {
	value = strings.Trim(value, " \t")
	scheme, rest, found := strings.Cut(value, " ")
	rest = strings.Trim(rest, " \t")
	switch {
	case isPlaceholder(own, value):
		return true
	case !found || strings.ContainsAny(scheme, ",;=\"\t"):
		return false
	case isPlaceholder(own, rest):
		return true
	case !strings.EqualFold(scheme, "basic"):
		return false
	}
	plain, err := base64.RawStdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(rest, "=")))
	user, password, _ := strings.Cut(string(plain), ":")
	// GitHub's clients write x-oauth-basic beside a token as user name.
	return err == nil && (isPlaceholder(own, password) || isPlaceholder(own, user) && (password == "" || password == "x-oauth-basic"))
}

func isPlaceholder(own []*secret.Secret, text string) bool {
	return slices.ContainsFunc(own, func(s *secret.Secret) bool { return s.Placeholder == text })
}

func decoded(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}
