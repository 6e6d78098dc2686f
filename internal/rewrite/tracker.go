package rewrite

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"

	"github.com/cutoutdev/cutout/internal/secret"
)

// Bounds of what a tracker remembers.
const (
	maxDepth = 512 // of JSON; servers stop long before
	maxKey   = 1 << 10
)

// A jsonTracker follows JSON, or JSON values one after the other.
type jsonTracker struct {
	levels  []jsonLevel
	string  bool // within one
	key     bool // which is a key
	escaped bool // the next byte is
	bad     bool
}

type jsonLevel struct {
	array  bool
	wanted bool   // object: a key comes next
	index  int    // array
	key    []byte // object: as it is written, without quotes
	long   bool   // the key is not whole
}

func (t *jsonTracker) write(p []byte) {
	for _, c := range p {
		if t.bad {
			return
		}
		if t.string {
			t.inString(c)
		} else {
			t.between(c)
		}
	}
}

func (t *jsonTracker) inString(c byte) {
	if c == '"' && !t.escaped {
		t.string, t.key = false, false
		return
	}
	t.escaped = c == '\\' && !t.escaped
	if !t.key {
		return
	}
	l := &t.levels[len(t.levels)-1]
	if len(l.key) == maxKey {
		l.long = true
		return
	}
	l.key = append(l.key, c)
}

func (t *jsonTracker) between(c byte) {
	var top *jsonLevel
	if len(t.levels) > 0 {
		top = &t.levels[len(t.levels)-1]
	}
	switch c {
	case '"':
		t.string = true
		if top != nil && top.wanted {
			t.key, top.wanted, top.long = true, false, false
			top.key = top.key[:0]
		}
	case '{', '[':
		if t.bad = len(t.levels) == maxDepth || top != nil && top.wanted; !t.bad {
			t.levels = append(t.levels, jsonLevel{array: c == '[', wanted: c == '{'})
		}
	case '}', ']':
		if t.bad = top == nil || top.array != (c == ']'); !t.bad {
			t.levels = t.levels[:len(t.levels)-1]
		}
	case ',':
		if t.bad = top == nil; !t.bad {
			top.index++
			top.wanted = !top.array
		}
	}
}

// in: a pointer names a value, RFC 6901 §4, and so all that is within it.
func (t *jsonTracker) in(part secret.BodyPart) (in, sane bool) {
	tokens := strings.Split(part.Pointer, "/")
	if part.Pointer == "" {
		return false, true
	}
	tokens = tokens[1:]
	if t.bad {
		return false, false
	}
	if !t.string || t.key || len(t.levels) < len(tokens) {
		return false, true
	}
	for i, token := range tokens {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		if !t.levels[i].is(token) {
			return false, true
		}
	}
	return true, true
}

func (l jsonLevel) is(token string) bool {
	if l.array {
		return token == strconv.Itoa(l.index)
	}
	var key string
	err := json.Unmarshal([]byte(`"`+string(l.key)+`"`), &key)
	return err == nil && !l.long && key == token
}

// A formTracker follows application/x-www-form-urlencoded.
type formTracker struct {
	name  []byte // as it is written
	long  bool
	value bool
}

func (t *formTracker) write(p []byte) {
	for _, c := range p {
		switch {
		case c == '&':
			t.name, t.long, t.value = t.name[:0], false, false
		case t.value && c == ';':
			t.long = true // some servers end the field here
		case t.value:
		case c == '=':
			t.value = true
		case len(t.name) == maxKey:
			t.long = true
		default:
			t.name = append(t.name, c)
		}
	}
}

func (t *formTracker) in(part secret.BodyPart) (in, sane bool) {
	if part.Field == "" || !t.value || t.long {
		return false, true
	}
	name, err := url.QueryUnescape(string(t.name))
	return err == nil && name == part.Field, true
}
