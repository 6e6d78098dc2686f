package debian

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
	"unicode/utf16"
)

// certificates does ca-certificates' part: the bundle, and for each root the
// two links by which OpenSSL finds it in the directory.
func (r *rootfs) certificates() error {
	var names []string
	var bundle bytes.Buffer
	conf := "# Roots to trust, below /usr/share/ca-certificates; see update-ca-certificates(8).\n"
	hashes := map[string]int{}
	for _, name := range sortedNames(r.kept) {
		rel, ok := strings.CutPrefix(name, "usr/share/ca-certificates/")
		if !ok || !strings.HasSuffix(rel, ".crt") {
			continue
		}
		names = append(names, rel)
		body := r.kept[name]
		bundle.Write(body)
		if !bytes.HasSuffix(body, []byte("\n")) {
			bundle.WriteByte('\n')
		}
		conf += rel + "\n"
		block, _ := pem.Decode(body)
		if block == nil {
			return fmt.Errorf("read certificate %s: not PEM", rel)
		}
		hash, err := subjectHash(block.Bytes)
		if err != nil {
			return fmt.Errorf("read certificate %s: %w", rel, err)
		}
		link := strings.TrimSuffix(path.Base(rel), ".crt") + ".pem"
		r.link("etc/ssl/certs/"+link, "/"+name)
		r.link(fmt.Sprintf("etc/ssl/certs/%s.%d", hash, hashes[hash]), link)
		hashes[hash]++
	}
	if len(names) > 0 {
		r.file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle.String())
		r.file("etc/ca-certificates.conf", 0o644, conf)
	}
	return nil
}

// subjectHash is what openssl x509 -subject_hash prints: a SHA-1 over the
// subject's attributes as lower-case UTF-8 with single spaces.
func subjectHash(der []byte) (string, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	var rdns []asn1.RawValue
	if _, err := asn1.Unmarshal(cert.RawSubject, &rdns); err != nil {
		return "", err
	}
	h := sha1.New()
	for _, rdn := range rdns {
		var out []byte
		var encoded [][]byte
		for rest := rdn.Bytes; len(rest) > 0; {
			var atv struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			if rest, err = asn1.Unmarshal(rest, &atv); err != nil {
				return "", err
			}
			if text, ok := directoryString(atv.Value); ok {
				text = strings.Join(strings.FieldsFunc(text, asciiSpace), " ")
				atv.Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: asciiLower(text)}
			}
			e, err := asn1.Marshal(atv)
			if err != nil {
				return "", err
			}
			encoded = append(encoded, e)
		}
		sort.Slice(encoded, func(i, j int) bool { return bytes.Compare(encoded[i], encoded[j]) < 0 })
		if out, err = asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: slices.Concat(encoded...)}); err != nil {
			return "", err
		}
		h.Write(out)
	}
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(h.Sum(nil))), nil
}

func asciiSpace(c rune) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func asciiLower(s string) []byte {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}

// directoryString decodes the string types of X.520.
func directoryString(v asn1.RawValue) (string, bool) {
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, 26: // VisibleString
		return string(v.Bytes), true
	case asn1.TagT61String:
		runes := make([]rune, len(v.Bytes)) // OpenSSL reads it as Latin-1
		for i, c := range v.Bytes {
			runes[i] = rune(c)
		}
		return string(runes), true
	case asn1.TagBMPString:
		u := make([]uint16, len(v.Bytes)/2)
		for i := range u {
			u[i] = binary.BigEndian.Uint16(v.Bytes[2*i:])
		}
		return string(utf16.Decode(u)), true
	}
	return "", false
}
