package coding

import (
	"strconv"
	"strings"
)

// Accept narrows the fields of an Accept-Encoding to the codings that are
// [Known], weights and all. Fields that name no other are returned as they
// are, since they may be part of what a request signs.
func Accept(fields []string) []string {
	var kept []string
	narrowed, wanted := false, false
	for _, f := range fields {
		for e := range strings.SplitSeq(f, ",") {
			name, params, _ := strings.Cut(e, ";")
			name = canonical(name)
			never := weightless(params)
			switch {
			case name == "*" && !never, name != "*" && !Known(name):
				narrowed = true
			case name != "":
				kept = append(kept, strings.Trim(e, " \t"))
				wanted = wanted || !never
			}
		}
	}
	if !narrowed {
		return fields
	}
	if !wanted { // else some would take it for leave to choose, RFC 9110 §12.5.3
		kept = append(kept, "identity")
	}
	return []string{strings.Join(kept, ", ")}
}

// weightless reports whether the parameters of a coding say that it is not
// acceptable: a weight of zero, RFC 9110 §12.4.2.
func weightless(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		if name, value, ok := strings.Cut(canonical(p), "="); ok && name == "q" {
			q, err := strconv.ParseFloat(value, 64)
			return err == nil && q == 0
		}
	}
	return false
}
