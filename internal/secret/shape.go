package secret

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
)

// minShapeBits are random in every shaped placeholder: nobody meets one by
// chance or by trying.
const minShapeBits = 64

// Shape draws a placeholder that looks like v: of its length, with the prefix
// of its kind and letters of its alphabet, and with a checksum if v has one,
// so that programs which measure or check their key keep working. Of a JSON
// web token the claims of keptMembers stay too. Nothing else of v shows.
//
// It fails if v is longer than a placeholder may be, if it holds other than
// letters, digits and - _ . ~ : + / =, and if fewer than 64 bits of it would
// be random.
func (s *Store) Shape(v Value) (string, error) {
	if v.store != s || v.n > maxPlaceholder {
		return "", fmt.Errorf("the value is longer than %d bytes", maxPlaceholder)
	}
	scratch, _, err := s.alloc(v.n)
	if err != nil {
		return "", err
	}
	defer s.release(scratch)
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return "", ErrClosed
	case s.lookup(v) == nil:
		return "", errReleased
	}
	for {
		d, err := draw(v.bytes(), s.mem.bytes[scratch:scratch+v.n])
		switch {
		case err != nil:
			return "", err
		case d.bits < minShapeBits:
			return "", fmt.Errorf("less than %d bits of it would be random", minShapeBits)
		case !d.shows(v.bytes()):
			return string(d.text), nil
		}
	}
}

// A drawing is a shaped placeholder in the making.
type drawing struct {
	text  []byte
	fixed []bool // by byte: the same in every token of its kind
	bits  float64
}

// draw makes a placeholder for value. scratch is for what is decoded of it,
// and as long.
func draw(value, scratch []byte) (*drawing, error) {
	d := &drawing{text: make([]byte, len(value)), fixed: make([]bool, len(value))}
	if d.token(value, scratch) || d.uuid(value) {
		return d, nil
	}
	f := familyOf(value)
	from, to := len(f.prefix), len(value)
	d.keep(0, f.prefix)
	if f.suffix != "" && bytes.HasSuffix(value[from:], []byte(f.suffix)) {
		to -= len(f.suffix)
		d.keep(to, f.suffix)
	}
	if f.sum && sumHolds(value[from:to]) {
		if err := d.runs(value, from, to-sumLen, f); err != nil {
			return nil, err
		}
		d.keep(to-sumLen, checksum(d.text[from:to-sumLen]))
		return d, nil
	}
	return d, d.runs(value, from, to, f)
}

// runs draws the letters between separators, each run from the least alphabet
// that has the run's own letters and the family's. Padding stays.
func (d *drawing) runs(value []byte, from, to int, f family) error {
	for to > from && value[to-1] == '=' {
		to--
		d.keep(to, "=")
	}
	separators := ".:" + f.separators
	for start := from; start <= to; {
		end := start
		for end < to && strings.IndexByte(separators, value[end]) < 0 {
			end++
		}
		letters := alphabetOf(value[start:end], f.letters)
		if letters == "" {
			return errors.New("the value holds other characters than letters, digits and - _ . ~ : + / =")
		}
		d.fill(start, end, letters)
		if end < to {
			d.keep(end, separators[strings.IndexByte(separators, value[end]):][:1])
		}
		start = end + 1
	}
	return nil
}

// keep puts text, which is the same for every token of the kind, at i.
func (d *drawing) keep(i int, text string) {
	for n := range copy(d.text[i:], text) {
		d.fixed[i+n] = true
	}
}

// fill draws text[from:to] from letters.
func (d *drawing) fill(from, to int, letters string) {
	randomOf(d.text[from:to], letters)
	d.bits += float64(to-from) * math.Log2(float64(len(letters)))
}

// randomOf fills dst with letters, each as likely as any other.
func randomOf(dst []byte, letters string) {
	limit := 256 - 256%len(letters)
	var raw [64]byte
	for n := 0; n < len(dst); {
		rand.Read(raw[:])
		for _, c := range raw {
			if int(c) < limit && n < len(dst) {
				dst[n] = letters[int(c)%len(letters)]
				n++
			}
		}
	}
}

// window is how many equal bytes in a row are no chance any more.
const window = 8

// shows reports whether a run of value came up again in what was drawn. It is
// unlikely, and then another is drawn.
func (d *drawing) shows(value []byte) bool {
	free := 0 // bytes before i+1 that were drawn
	for i := range d.text {
		free++
		if d.fixed[i] {
			free = 0
		}
		if free >= window && bytes.Contains(value, d.text[i+1-window:i+1]) {
			return true
		}
	}
	return false
}

// The alphabets of tokens, each before those that hold it.
var alphabets = []string{
	digits,
	digits + "abcdef",
	digits + "ABCDEF",
	upper + "234567", // RFC 4648 §6
	lower,
	upper,
	digits + lower,
	digits + upper,
	lower + upper,
	alphanumeric,
	urlLetters,
	stdLetters,
	alphanumeric + "-_~+/=",
}

const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// alphabetOf returns the first alphabet that has all letters of text and of
// least, "" if none has.
func alphabetOf(text []byte, least string) string {
	for _, a := range alphabets {
		if within(text, a) && within([]byte(least), a) {
			return a
		}
	}
	return ""
}

func within(text []byte, letters string) bool {
	for _, c := range text {
		if strings.IndexByte(letters, c) < 0 {
			return false
		}
	}
	return true
}

// uuid draws another UUID of the same version and variant, RFC 9562 §4. It
// reports whether value is one.
func (d *drawing) uuid(value []byte) bool {
	const form = "xxxxxxxx-xxxx-Vxxx-Nxxx-xxxxxxxxxxxx"
	if len(value) != len(form) {
		return false
	}
	for i, c := range value {
		if (form[i] == '-') != (c == '-') {
			return false
		}
	}
	hex := digits + "abcdef"
	if !within(value, hex+"-") {
		hex = digits + "ABCDEF"
	}
	if !within(value, hex+"-") {
		return false
	}
	variant := "89" + hex[10:12]
	for i, c := range value {
		switch {
		case form[i] == '-':
			d.keep(i, "-")
		case form[i] == 'V':
			d.keep(i, hex[strings.IndexByte(hex, c):][:1])
		case form[i] == 'N' && strings.IndexByte(variant, c) >= 0:
			d.fill(i, i+1, variant)
		default:
			d.fill(i, i+1, hex)
		}
	}
	return true
}

// sumLen letters at a token's end are its checksum.
const sumLen = 6

// sumLetters are the digits of a checksum, in their order.
const sumLetters = digits + upper + lower

// checksum returns the CRC-32 of text in base 62.
func checksum(text []byte) string {
	var out [sumLen]byte
	sum := crc32.ChecksumIEEE(text)
	for i := sumLen - 1; i >= 0; i-- {
		out[i] = sumLetters[sum%62]
		sum /= 62
	}
	return string(out[:])
}

// sumHolds reports whether body ends in its checksum.
func sumHolds(body []byte) bool {
	n := len(body) - sumLen
	return n > 0 && string(body[n:]) == checksum(body[:n])
}
