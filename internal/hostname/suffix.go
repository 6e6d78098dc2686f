package hostname

import (
	_ "embed"
	"strings"
	"sync"
)

//go:generate go run ./internal/suffixgen suffix.txt

// suffixText is the names of two or more labels that have a public suffix,
// ICANN or private, strictly below them. The first line names the version of
// the list, which a test compares with the module's.
//
//go:embed suffix.txt
var suffixText string

var suffixParents = sync.OnceValue(func() map[Name]struct{} {
	_, names, _ := strings.Cut(suffixText, "\n")
	set := make(map[Name]struct{})
	for name := range strings.Lines(names) {
		set[Name(strings.TrimSpace(name))] = struct{}{}
	}
	return set
})

// suffixBelow reports whether a public suffix lies strictly below base: then
// names below base have different owners though base itself is no suffix, as
// with amazonaws.com because of s3.amazonaws.com.
func suffixBelow(base Name) bool {
	_, ok := suffixParents()[base]
	return ok
}
