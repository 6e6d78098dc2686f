package websocket

import "unicode/utf8"

// A validator checks that a stream is UTF-8.
type validator struct {
	rune [utf8.UTFMax]byte // that is not complete
	n    int
}

// add checks the next bytes, and reports false as soon as no continuation
// could make the stream valid.
func (v *validator) add(p []byte) bool {
	for v.n > 0 && len(p) > 0 {
		v.rune[v.n] = p[0]
		v.n++
		p = p[1:]
		if !utf8.FullRune(v.rune[:v.n]) {
			continue
		}
		if !utf8.Valid(v.rune[:v.n]) {
			return false
		}
		v.n = 0
	}
	end := len(p)
	for i := end - 1; i >= 0 && i >= end-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				end = i
			}
			break
		}
	}
	if !utf8.Valid(p[:end]) {
		return false
	}
	v.n += copy(v.rune[v.n:], p[end:])
	return true
}

// complete reports whether the stream may end here.
func (v *validator) complete() bool { return v.n == 0 }

// validClose checks the payload of a Close frame, RFC 6455 §5.5.1, §7.4.
func validClose(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if len(p) == 1 {
		return fault("half a close code")
	}
	switch code := int(p[0])<<8 | int(p[1]); {
	case code >= 3000 && code < 5000, code >= 1000 && code <= 1003, code >= 1007 && code <= 1014:
	default:
		return fault("reserved close code")
	}
	if !utf8.Valid(p[2:]) {
		return &Error{InvalidText, "the reason of a Close frame is not UTF-8"}
	}
	return nil
}
