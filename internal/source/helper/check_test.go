package helper

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/source"
)

func hint(err error) string {
	if e, ok := errors.AsType[*source.Error](err); ok {
		return e.Hint
	}
	return ""
}

// TestCheckTexts holds every form of ATTACKS C11's second half.
func TestCheckTexts(t *testing.T) {
	const value = `s3cr3t/"V&lue"+%` // needs escaping in every form
	b64 := base64.StdEncoding
	holds := map[string]string{
		"raw":            "curl -H 'Authorization: Bearer " + value + "'",
		"query":          url.QueryEscape(value),
		"query lower":    strings.ToLower(url.QueryEscape(strings.ToUpper("x") + value)),
		"path":           url.PathEscape(value),
		"json":           fmt.Sprintf("%q", value),
		"hex":            hex.EncodeToString([]byte(value)),
		"HEX":            strings.ToUpper(hex.EncodeToString([]byte(value))),
		"base64":         b64.EncodeToString([]byte(value)),
		"base64 basic 1": b64.EncodeToString([]byte("u:" + value)),
		"base64 basic 2": b64.EncodeToString([]byte("me:" + value)),
		"base64 basic 3": b64.EncodeToString([]byte("use:" + value + "tail")),
		"base64 url":     base64.RawURLEncoding.EncodeToString([]byte("xyz" + value)),
		"partly escaped": "a%73%33cr3t/%22V&lue%22+%b",
		"in a form":      "q=s3cr3t%2F%22V%26lue%22%2B%25",
		"json by number": `{"k":"\u0073\u0033cr3t\/\u0022V\u0026lue\u0022+%"}`,
		"html by name":   `<a href="s3cr3t&#x2F;&quot;V&amp;lue&quot;&plus;%">`,
		"base64 wrapped": "echo " + b64.EncodeToString([]byte("u:" + value))[:9] + "\n" + b64.EncodeToString([]byte("u:" + value))[9:],
		"base64 in url":  "auth=" + url.QueryEscape(b64.EncodeToString([]byte(value))),
		"upper case":     strings.ToUpper(value),
		"html":           `<a href="s3cr3t/&#34;V&amp;lue&#34;+%">`,
	}
	for name, text := range holds {
		err := checkTexts("T", []byte(value), []Text{{"the command", text}})
		if err == nil {
			t.Errorf("%s: not found in %q", name, text)
		} else if strings.Contains(err.Error()+hint(err), value) {
			t.Errorf("%s: the error repeats the value", name)
		}
	}
	const other = "p\u00e4ss \U0001f511 w\u00f6rd"
	for name, text := range map[string]string{
		"json": `{"k":"p\u00e4ss \ud83d\udd11 w\u00F6rd"}`, "percent": url.QueryEscape(other), "html": "p&auml;ss &#128273; w&ouml;rd",
	} {
		if checkTexts("T", []byte(other), []Text{{"the command", text}}) == nil {
			t.Errorf("%s: not found in %q", name, text)
		}
	}
	for _, text := range []string{"", `\`, `\u`, `\ud83d`, "%", "%4", "&", "+", "curl $T", "$MSB_T", b64.EncodeToString([]byte("another text altogether"))} {
		if err := checkTexts("T", []byte(value), []Text{{"the command", text}}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}
