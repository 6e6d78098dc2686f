package secret

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"html"
	"net/url"
	"strings"
	"testing"
)

func encoded(t *testing.T, value string, enc Encoding) (string, error) {
	t.Helper()
	st := newStore(t)
	v := load(t, st, value)
	parts := []Part{{Value: v}}
	want, lenErr := st.EncodedLen(parts, enc)
	off, n, err := st.encode(parts, enc)
	if (lenErr == nil) != (err == nil) || err == nil && n != want {
		t.Fatalf("length %d, %v; encoded %d, %v", want, lenErr, n, err)
	}
	if err != nil {
		return "", err
	}
	defer st.release(off)
	return string(st.mem.bytes[off : off+n]), nil
}

// TestEncodingsAreRead: what is written is read as the value, and nothing
// around it is read otherwise than before.
func TestEncodingsAreRead(t *testing.T) {
	values := []string{
		"sk-live-0123456789", `quo"te and \ back`, "a&b=c;d<e>f'g", "per%cent+plus/slash?#", "tab\tinside it",
		"ünï-cödé-€-𝄞", "\u2028 line separator", "~tilde.dot-_", "bell\adelete\x7f",
	}
	for _, v := range values {
		if got, err := encoded(t, v, Percent); err != nil {
			t.Errorf("percent %q: %v", v, err)
		} else if plain, err := url.PathUnescape(got); err != nil || plain != v || strings.ContainsAny(got, "/?#&=+; ") {
			t.Errorf("percent %q: %q is read as %q, %v", v, got, plain, err)
		} else if plain, err := url.QueryUnescape(got); err != nil || plain != v {
			t.Errorf("form %q: %q is read as %q, %v", v, got, plain, err)
		}
		if got, err := encoded(t, v, JSON); err != nil {
			t.Errorf("JSON %q: %v", v, err)
		} else {
			var plain [1]string
			if err := json.Unmarshal([]byte(`["`+got+`"]`), &plain); err != nil || plain[0] != v {
				t.Errorf("JSON %q: %q is read as %q, %v", v, got, plain, err)
			}
		}
		got, err := encoded(t, v, XML)
		if strings.Contains(v, "\a") {
			if !errors.Is(err, ErrUnsafe) {
				t.Errorf("XML %q: %v", v, err)
			}
			continue
		}
		var x struct {
			A string `xml:"a,attr"`
			T string `xml:",chardata"`
		}
		if err != nil {
			t.Errorf("XML %q: %v", v, err)
		} else if err := xml.Unmarshal([]byte(`<x a="`+got+`">`+got+`</x>`), &x); err != nil || x.A != v || x.T != v {
			t.Errorf("XML %q: %q is read as %q and %q, %v", v, got, x.A, x.T, err)
		} else if html.UnescapeString(got) != v {
			t.Errorf("HTML %q: %q", v, got)
		}
	}
}

func TestUnsafeEncodings(t *testing.T) {
	tests := []struct {
		value string
		enc   Encoding
	}{
		{"not utf-8 \xff\xfe", JSON},
		{"not utf-8 \xff\xfe", XML},
		{"control \x01 character", XML},
		{"........", Percent},
		{"key: value", Bare},
		{"comma,comma", Bare},
		{`quote"quote`, Bare},
		{"#comment", Bare},
		{"anything at all", Encoding(99)},
	}
	for _, tt := range tests {
		if got, err := encoded(t, tt.value, tt.enc); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%q in encoding %d: %q, %v", tt.value, tt.enc, got, err)
		}
	}
	if got, err := encoded(t, "sk-live_0123.45+6/7==", Bare); err != nil || got != "sk-live_0123.45+6/7==" {
		t.Errorf("bare: %q, %v", got, err)
	}
}

func TestOnlySingleValuesAreEscaped(t *testing.T) {
	st := newStore(t)
	v := load(t, st, "sk-live-0123456789")
	for _, parts := range [][]Part{nil, {{Text: "text"}}, {{Value: v}, {Text: "text"}}, {{Value: v, Text: "both"}}} {
		if _, _, err := st.encode(parts, JSON); err == nil {
			t.Errorf("%v was encoded", parts)
		}
	}
	st.Release(v)
	if _, _, err := st.encode([]Part{{Value: v}}, JSON); err == nil {
		t.Error("a released value was encoded")
	}
}
