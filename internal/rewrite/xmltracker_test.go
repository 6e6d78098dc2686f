package rewrite

import (
	"testing"

	"github.com/cutoutdev/cutout/internal/secret"
)

// TestXMLPlaces: entities are read in text and attribute values, not in CDATA
// sections; nothing is a place for a value anywhere else.
func TestXMLPlaces(t *testing.T) {
	const none = secret.Encoding(0)
	for text, want := range map[string]secret.Encoding{
		"":                                  secret.XML,
		"<a>":                               secret.XML,
		"<a b=\"":                           secret.XML,
		"<a b='\"":                          secret.XML,
		"<a b=\"'\"":                        none,
		"<":                                 none,
		"<![CDATA[":                         secret.Bare,
		"<![CDATA[]]":                       secret.Bare,
		"<![CDATA[]>]]]>":                   secret.XML,
		"<!-- ":                             none,
		"<!-- > -- --->":                    secret.XML,
		"<?x > ":                            none,
		"<?x ??>":                           secret.XML,
		"<!DOCTYPE a [<!ENTITY b 'c'>]><a>": none,
	} {
		for size := 1; size <= len(text)+1; size++ {
			x := &xmlTracker{}
			for at := 0; at < len(text); at += size {
				x.write([]byte(text[at:min(at+size, len(text))]))
			}
			if got, fits := x.encoding([]byte("$MSB_KEY")); fits != (want != none) || fits && got != want {
				t.Errorf("after %q in pieces of %d: encoding %d, %v", text, size, got, fits)
			}
		}
	}
	if _, fits := (&xmlTracker{}).encoding([]byte("<MSB_KEY>")); fits {
		t.Error("markup is a placeholder")
	}
}
