package config

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
)

// A Text is something that Cutout would put into the guest, its state or an
// argument list, with the words by which the user knows it.
type Text struct {
	Where string // "the command", "-e FOO"
	Text  string
}

// CheckHandover refuses texts that hold a value in a form that a shell or a
// script could have made of it. The error names secret and place, never the
// text.
func CheckHandover(name string, value []byte, texts []Text) error {
	forms := formsOf(string(value))
	for _, t := range texts {
		folded := strings.ToLower(t.Text)
		for _, f := range forms {
			if strings.Contains(t.Text, f.text) || f.fold && strings.Contains(folded, f.text) {
				return hinted(fmt.Sprintf("the value of %s stands in %s", name, t.Where),
					"your shell expanded it before Cutout saw it: use single quotes, so that the guest's shell expands the placeholder")
			}
		}
	}
	return nil
}

type form struct {
	text string
	fold bool // compare with the lower-cased text
}

// formsOf lists the spellings of v that are searched for: raw, percent,
// JSON, HTML, hex, and Base64 at its three alignments in both alphabets,
// which finds base64(user:value) too.
func formsOf(v string) []form {
	forms := []form{
		{text: v},
		{text: url.QueryEscape(v)},
		{text: url.PathEscape(v)},
		{text: strings.ToLower(url.QueryEscape(v)), fold: true},
		{text: html.EscapeString(v)},
		{text: hex.EncodeToString([]byte(v)), fold: true},
	}
	for _, escapeHTML := range []bool{true, false} {
		var quoted strings.Builder
		enc := json.NewEncoder(&quoted)
		enc.SetEscapeHTML(escapeHTML)
		if enc.Encode(v) == nil {
			text := quoted.String()
			forms = append(forms, form{text: text[1 : len(text)-2]}) // without quotes and newline
		}
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			if core := alignedBase64(enc, v, shift); len(core) >= minCore {
				forms = append(forms, form{text: core})
			}
		}
	}
	return forms
}

// minCore is the least Base64 text that is evidence of a value and not of
// chance: 8 characters are 48 bits.
const minCore = 8

// alignedBase64 encodes v as it appears shift bytes into a longer text,
// without the characters that depend on its neighbours.
func alignedBase64(enc *base64.Encoding, v string, shift int) string {
	text := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + v))
	first := (shift*8 + 5) / 6 // the first character that v alone determines
	last := (shift + len(v)) * 8 / 6
	return text[first:last]
}
