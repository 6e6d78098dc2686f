package secret

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"strings"
)

// spellings returns the usual ways in which text, which is no value, may be
// written: raw, with the escapes of URLs, JSON and HTML, in hex, and in
// Base64 at its three alignments.
func spellings(text string) []string {
	out := []string{text, url.QueryEscape(text), url.PathEscape(text), html.EscapeString(text)}
	for _, digits := range []string{"0123456789ABCDEF", "0123456789abcdef"} {
		var all, bare strings.Builder
		for i := range len(text) {
			hi, lo := digits[text[i]>>4], digits[text[i]&15]
			all.Write([]byte{'%', hi, lo})
			bare.Write([]byte{hi, lo})
		}
		out = append(out, all.String(), bare.String())
	}
	if quoted, err := json.Marshal(text); err == nil {
		out = append(out, string(quoted[1:len(quoted)-1]))
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			from, to := Form{shift: shift}.core(len(text))
			out = append(out, enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + text))[from:to])
		}
	}
	return out
}

// readings returns what a reader may make of text: itself and what is left
// when the escapes of URLs, JSON, HTML, hex or Base64 are undone.
func readings(text string) []string {
	out := []string{text, html.UnescapeString(text)}
	if plain, err := url.QueryUnescape(text); err == nil {
		out = append(out, plain)
	}
	var plain string
	if json.Unmarshal([]byte(`"`+text+`"`), &plain) == nil {
		out = append(out, plain)
	}
	if plain, err := hex.DecodeString(text); err == nil {
		out = append(out, string(plain))
	}
	return out
}

// spells reports whether text holds part in any spelling. Case makes no
// difference: some places of a request are read without regard to it.
func spells(text, part string) bool {
	for _, t := range readings(text) {
		t = strings.ToLower(t)
		for _, p := range spellings(part) {
			if strings.Contains(t, strings.ToLower(p)) {
				return true
			}
		}
	}
	return false
}
