package rewrite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cutoutdev/cutout/internal/secret"
)

// rewritten returns what Body makes of text, in pieces of the given size, and
// what Found was told.
func rewritten(f *Finder, contentType, text string, piece int, swap func(*secret.Secret) bool) (out string, told []string, err error) {
	var r io.Reader = strings.NewReader(text)
	if piece > 0 {
		r = &pieces{r, piece}
	}
	b, err := io.ReadAll(f.Body(r, Body{
		ContentType: contentType,
		Swap:        swap,
		Seal: func(parts []secret.Part, enc secret.Encoding) (string, error) {
			return marker(f, parts, enc), nil
		},
		Found: func(o Occurrence, swapped bool) error {
			told = append(told, fmt.Sprintf("%s %v", o.Secret.Name, swapped))
			return nil
		},
	}))
	return string(b), told, err
}

type pieces struct {
	r io.Reader
	n int
}

func (p *pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(p.n, len(b))]) }

// marker shows which value in which encoding it stands for, in the value's
// length.
func marker(f *Finder, parts []secret.Part, enc secret.Encoding) string {
	for _, s := range f.secrets {
		if parts[0].Value == s.Value {
			m := fmt.Sprintf("<%s%d>", s.Name, enc)
			return m + strings.Repeat("-", max(0, s.Value.Len()-len(m)))
		}
	}
	return "?"
}

func everywhere(list []*secret.Secret) []*secret.Secret {
	for _, s := range list {
		s.Surfaces = &secret.Surfaces{Body: []secret.BodyPart{{}}}
	}
	return list
}

func all(*secret.Secret) bool { return true }

// The first is as long as its placeholder, so that opaque bodies take it
// too.
const (
	valueA = "valueAAAAA"
	valueB = "valueBB-longer"
)

func TestBody(t *testing.T) {
	f := NewFinder(everywhere(secrets(t, valueA, valueB)))
	const (
		raw, pct, js, xm, bare = "<A0>------", "<A2>------", "<A3>------", "<A4>------", "<A5>------"
		part                   = "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n"
	)
	tests := []struct {
		name, contentType, body, want string
		fault                         Fault
	}{
		{"text", "text/plain", "a $MSB_KEY_A z", "a " + raw + " z", ""},
		{"text with escapes", "text/plain", "%24MSB_KEY_A &#36;MSB_KEY_A", "%24MSB_KEY_A &#36;MSB_KEY_A", ""},
		{"JSON", "application/json", `{"k":"$MSB_KEY_A"}`, `{"k":"` + js + `"}`, ""},
		{"JSON key", "application/json", `{"$MSB_KEY_A":1}`, `{"` + js + `":1}`, ""},
		{"JSON escapes", "application/vnd.api+json; charset=utf-8", `["\u0024MSB\u005FKEY_\u0041","\\u0024MSB_KEY_A"]`, `["` + js + `","\\u0024MSB_KEY_A"]`, ""},
		{"JSON after escapes", "application/json", `["\n\t\u00e9\ud83d\ude00$MSB_KEY_A\n"]`, `["\n\t\u00e9\ud83d\ude00` + js + `\n"]`, ""},
		{"JSON lines", "application/x-ndjson", "\"$MSB_KEY_A\"\n\"$MSB_KEY_A\"\n", "\"" + js + "\"\n\"" + js + "\"\n", ""},
		{"form", "application/x-www-form-urlencoded", "a=$MSB_KEY_A&%24MSB_KEY_%41=b+c", "a=" + pct + "&" + pct + "=b+c", ""},
		{"form broken escape", "application/x-www-form-urlencoded", "a=%2&b=%zz%24MSB_KEY_A%", "a=%2&b=%zz" + pct + "%", ""},
		{"form escaped twice", "application/x-www-form-urlencoded", "a=%2524MSB_KEY_A", "a=%2524MSB_KEY_A", ""},
		{"XML", "application/soap+xml", "<a b='$MSB_KEY_A'>&#36;MSB&#x5F;KEY_A &dollar;MSB&lowbar;KEY_A</a>", "<a b='" + xm + "'>" + xm + " " + xm + "</a>", ""},
		{"HTML", "text/html", "&amp;$MSB_KEY_A&unknown;&", "&amp;" + xm + "&unknown;&", ""},
		{"YAML", "application/yaml", "key: $MSB_KEY_A\n", "key: " + bare + "\n", ""},
		{"CSV", "text/csv", "1,$MSB_KEY_A\n", "1," + bare + "\n", ""},
		{"opaque, equal length", "application/octet-stream", "\x00\x09$MSB_KEY_A", "\x00\x09" + raw, ""},
		{"opaque, another length", "application/octet-stream", "\x00$MSB_KEY_B", "\x00", NeedsEqualLength},
		{"no type", "", "$MSB_KEY_B", "", NeedsEqualLength},
		{"broken type", "text/plain; charset", "$MSB_KEY_B", "", NeedsEqualLength},
		{"another charset", "application/json; charset=utf-16", "$MSB_KEY_A", "", Unsafe},
		{"another charset in a part", "multipart/form-data; boundary=b", part + "Content-Type: text/plain; charset=utf-7\r\n\r\n$MSB_KEY_A", part + "Content-Type: text/plain; charset=utf-7\r\n\r\n", Unsafe},
		{"XML CDATA", "text/xml", "<a><![CDATA[$MSB_KEY_A]]></a>", "<a><![CDATA[" + bare + "]]></a>", ""},
		{"XML comment", "text/xml", "<!--$MSB_KEY_A", "<!--", Unsafe},
		{"XML name", "text/xml", "<$MSB_KEY_A", "<", Unsafe},
		{"too many", "text/plain", strings.Repeat("$MSB_KEY_A", MaxBodyOccurrences+1), strings.Repeat(raw, MaxBodyOccurrences), TooMany},
		{"nothing", "application/json", `{"a":"\u00e9 $MSB_KEY"}`, `{"a":"\u00e9 $MSB_KEY"}`, ""},
		{"empty", "application/json", "", "", ""},
		{
			"multipart", "multipart/form-data; boundary=b",
			part + "\r\n%24 $MSB_KEY_A\r\n" + part + "Content-Type: application/json\r\n\r\n[\"\\u0024MSB_KEY_A\"]\r\n--b--\r\n",
			part + "\r\n%24 " + raw + "\r\n" + part + "Content-Type: application/json\r\n\r\n[\"" + js + "\"]\r\n--b--\r\n", "",
		},
		{"multipart head", "multipart/form-data; boundary=b", "--b\r\nX: $MSB_KEY_A\r\n\r\n", "--b\r\nX: ", Unsafe},
		{"multipart preamble", "multipart/form-data; boundary=b", "$MSB_KEY_A\r\n--b\r\n\r\n", "", Unsafe},
		{"multipart epilogue", "multipart/form-data; boundary=b", "--b\r\n\r\nx\r\n--b--\r\n$MSB_KEY_A", "--b\r\n\r\nx\r\n--b--\r\n", Unsafe},
		{"multipart base64 part", "multipart/form-data; boundary=b", part + "Content-Transfer-Encoding: base64\r\n\r\n$MSB_KEY_A", part + "Content-Transfer-Encoding: base64\r\n\r\n", Unsafe},
		{"multipart binary part", "multipart/form-data; boundary=b", part + "Content-Type: image/png\r\n\r\n$MSB_KEY_B", part + "Content-Type: image/png\r\n\r\n", NeedsEqualLength},
		{"multipart part with length", "multipart/mixed; boundary=b", part + "Content-Length: 9\r\n\r\n$MSB_KEY_B", part + "Content-Length: 9\r\n\r\n", NeedsEqualLength},
		{"multipart bare line feeds", "multipart/form-data; boundary=b", part + "\r\nx\n--b\nContent-Disposition: form-data; name=y\n\n$MSB_KEY_A", part + "\r\nx\n--b\nContent-Disposition: form-data; name=y\n\n", Unsafe},
		{"multipart bare line feed in head", "multipart/form-data; boundary=b", "--b\r\nA: b\nC: d\r\n\r\n$MSB_KEY_A", "--b\r\nA: b\nC: d\r\n\r\n", Unsafe},
		{"multipart longer delimiter", "multipart/form-data; boundary=b", part + "\r\nx\r\n--bcd\r\n$MSB_KEY_A", part + "\r\nx\r\n--bcd\r\n", Unsafe},
		{"multipart head without end", "multipart/form-data; boundary=b", "--b\r\n" + strings.Repeat("x", maxPartHead) + "$MSB_KEY_A\r\n\r\n", "--b\r\n" + strings.Repeat("x", maxPartHead), Unsafe},
		{"multipart inside", "multipart/mixed; boundary=b", "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n$MSB_KEY_B", "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n", NeedsEqualLength},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, piece := range []int{0, 1, 2, 3, 7} {
				got, _, err := rewritten(f, tt.contentType, tt.body, piece, all)
				var no *Refusal
				errors.As(err, &no)
				if got != tt.want || (err == nil) != (tt.fault == "") || no != nil && no.Reason != tt.fault {
					t.Fatalf("in pieces of %d:\ngot  %q, %v\nwant %q, %s", piece, got, err, tt.want, tt.fault)
				}
			}
		})
	}
}

// TestBodyParts: only where the secret's parts of a body are does a value go.
func TestBodyParts(t *testing.T) {
	const form, js, mp = "application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=b"
	field := func(name string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n$MSB_KEY_A\r\n--b--"
	}
	tests := []struct {
		name        string
		part        secret.BodyPart
		contentType string
		body        string
		swapped     bool
		fault       Fault
	}{
		{"type", secret.BodyPart{Type: js}, "Application/JSON; charset=utf-8", `["$MSB_KEY_A"]`, true, ""},
		{"another type", secret.BodyPart{Type: js}, "text/plain", `["$MSB_KEY_A"]`, false, ""},
		{"multipart type", secret.BodyPart{Type: "multipart/form-data"}, mp, field("x"), true, ""},
		{"type of a part", secret.BodyPart{Type: "text/plain"}, mp, field("x"), false, ""},
		{"pointer in a part", secret.BodyPart{Pointer: "/a"}, mp, "--b\r\nContent-Type: application/json\r\n\r\n{\"a\":\"$MSB_KEY_A\"}", false, ""},
		{"field after a semicolon", secret.BodyPart{Field: "a"}, form, "a=1;b=$MSB_KEY_A", false, ""},
		{"pointer", secret.BodyPart{Pointer: "/a/1"}, js, `{"x":[],"a":[0,"$MSB_KEY_A"]}`, true, ""},
		{"pointer to what holds it", secret.BodyPart{Pointer: "/a"}, js, `{"a":{"b":["$MSB_KEY_A"]}}`, true, ""},
		{"pointer, escaped", secret.BodyPart{Pointer: "/a~1b~0c"}, js, `{"\u0061/b~c":"$MSB_KEY_A"}`, true, ""},
		{"pointer, another key", secret.BodyPart{Pointer: "/a/1"}, js, `{"b":[0,"$MSB_KEY_A"]}`, false, ""},
		{"pointer, another index", secret.BodyPart{Pointer: "/a/1"}, js, `{"a":["$MSB_KEY_A",0]}`, false, ""},
		{"pointer, after it", secret.BodyPart{Pointer: "/a"}, js, `{"a":"x","b":"$MSB_KEY_A"}`, false, ""},
		{"pointer, deeper", secret.BodyPart{Pointer: "/a"}, js, `{"x":{"a":"$MSB_KEY_A"}}`, false, ""},
		{"pointer, a key itself", secret.BodyPart{Pointer: "/a"}, js, `{"a":{"$MSB_KEY_A":1}}`, false, ""},
		{"pointer, quotes in a string", secret.BodyPart{Pointer: "/a"}, js, `{"x":"\",\"a\":\"$MSB_KEY_A"}`, false, ""},
		{"pointer, long key", secret.BodyPart{Pointer: "/a"}, js, `{"a` + strings.Repeat("a", maxKey) + `":"$MSB_KEY_A"}`, false, ""},
		{"pointer, broken JSON", secret.BodyPart{Pointer: "/a"}, js, `{"x":]"a":"$MSB_KEY_A"}`, false, Unsafe},
		{"pointer, too deep", secret.BodyPart{Pointer: "/a"}, js, strings.Repeat("[", maxDepth+1) + `"$MSB_KEY_A"`, false, Unsafe},
		{"pointer, no JSON", secret.BodyPart{Pointer: "/a"}, "text/plain", `{"a":"$MSB_KEY_A"}`, false, ""},
		{"field", secret.BodyPart{Field: "key"}, form, "a=b&k%65y=$MSB_KEY_A", true, ""},
		{"another field", secret.BodyPart{Field: "key"}, form, "key=&a=$MSB_KEY_A", false, ""},
		{"field, the name itself", secret.BodyPart{Field: "key"}, form, "$MSB_KEY_A=1", false, ""},
		{"field, long name", secret.BodyPart{Field: "key"}, form, "key" + strings.Repeat("x", maxKey) + "=$MSB_KEY_A", false, ""},
		{"field of multipart", secret.BodyPart{Field: "key"}, mp, field("key"), true, ""},
		{"another field of multipart", secret.BodyPart{Field: "key"}, mp, field("other"), false, ""},
		{"two names", secret.BodyPart{Field: "key"}, mp, "--b\r\nContent-Disposition: form-data; name=key\r\nContent-Disposition: form-data; name=x\r\n\r\n$MSB_KEY_A", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list := secrets(t, valueA, valueB)
			list[0].Surfaces = &secret.Surfaces{Body: []secret.BodyPart{tt.part}}
			f := NewFinder(list)
			for _, piece := range []int{0, 1, 3} {
				got, told, err := rewritten(f, tt.contentType, tt.body, piece, all)
				if tt.fault != "" {
					if no, ok := errors.AsType[*Refusal](err); !ok || no.Reason != tt.fault {
						t.Fatalf("got %v, want %s", err, tt.fault)
					}
					continue
				}
				if err != nil || (got != tt.body) != tt.swapped || len(told) != 1 || told[0] != fmt.Sprint("A ", tt.swapped) {
					t.Fatalf("in pieces of %d: got %q, told %q, %v", piece, got, told, err)
				}
			}
		})
	}
}

func TestBodyStaysInert(t *testing.T) {
	list := everywhere(secrets(t, valueA, valueB))
	list[1].Surfaces = nil
	f := NewFinder(list)
	onlyB := func(s *secret.Secret) bool { return s.Name == "B" }
	const body = `["$MSB_KEY_A","$MSB_KEY_B","\u0024MSB_KEY_A"]`
	got, told, err := rewritten(f, "application/json", body, 0, onlyB)
	if err != nil || got != body || strings.Join(told, ",") != "A false,B false,A false" {
		t.Errorf("got %q, told %q, %v", got, told, err)
	}
}

func TestBodyErrorsEndIt(t *testing.T) {
	f := NewFinder(everywhere(secrets(t, valueA, valueB)))
	stop := errors.New("stop")
	for name, b := range map[string]Body{
		"found": {Found: func(Occurrence, bool) error { return stop }},
		"seal": {
			Found: func(Occurrence, bool) error { return nil },
			Seal:  func([]secret.Part, secret.Encoding) (string, error) { return "", stop },
		},
	} {
		b.ContentType, b.Swap = "text/plain", all
		got, err := io.ReadAll(f.Body(strings.NewReader("before $MSB_KEY_A after"), b))
		if string(got) != "before " || !errors.Is(err, stop) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	b := Body{ContentType: "text/plain", Swap: all, Found: func(Occurrence, bool) error { return nil }}
	b.Seal = func([]secret.Part, secret.Encoding) (string, error) { return "", secret.ErrUnsafe }
	_, err := io.ReadAll(f.Body(strings.NewReader("$MSB_KEY_A"), b))
	if no, ok := errors.AsType[*Refusal](err); !ok || no.Reason != Unsafe {
		t.Errorf("unsafe: %v", err)
	}
	broken := iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("some text")))
	if _, err := io.ReadAll(f.Body(broken, b)); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("read: %v", err)
	}
}

// FuzzBody: however a body is split, the same comes out; nothing is put in
// for a secret that is not admitted; JSON and forms are read as what they
// were, with the values in the place of the placeholders.
func FuzzBody(f *testing.F) {
	types := []string{
		"text/plain", "application/json", "application/x-www-form-urlencoded", "text/xml",
		"multipart/form-data; boundary=b", "application/octet-stream",
	}
	for i := range types {
		for _, s := range []string{
			`{"a":["\u0024MSB_KEY_A\n$MSB_KEY_B"],"$MSB_KEY_A":"\\u0024MSB_KEY_A"}`, "a=%24MSB_KEY_A&$MSB_KEY_B=+%", "&#36;MSB_KEY_A&amp;&#x24;MSB_KEY_B&",
			"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n$MSB_KEY_A\r\n--b\r\nContent-Type: application/json\r\n\r\n[\"\\u0024MSB_KEY_B\"]\r\n--b--\r\n",
			"$MSB_$MSB_KEY_$MSB_KEY_A$MSB_KEY_", "\\u00\\", "%2",
		} {
			f.Add(byte(i), []byte(s), byte(1))
		}
	}
	finder := NewFinder(everywhere(secrets(f, valueA, valueB)))
	f.Fuzz(func(t *testing.T, which byte, body []byte, piece byte) {
		contentType := types[int(which)%len(types)]
		whole, told, err := rewritten(finder, contentType, string(body), 0, all)
		split, toldToo, errToo := rewritten(finder, contentType, string(body), int(piece)%11+1, all)
		if whole != split || fmt.Sprint(told) != fmt.Sprint(toldToo) || fmt.Sprint(err) != fmt.Sprint(errToo) {
			t.Fatalf("whole %q %q %v\nsplit %q %q %v", whole, told, err, split, toldToo, errToo)
		}
		none, _, err2 := rewritten(finder, contentType, string(body), int(piece)%5, func(*secret.Secret) bool { return false })
		if err2 != nil || none != string(body) {
			t.Fatalf("not admitted: %q, %v", none, err2)
		}
		if err != nil {
			return
		}
		put := strings.NewReplacer("$MSB_KEY_A", marker(finder, []secret.Part{{Value: finder.secrets[0].Value}}, secret.JSON), "$MSB_KEY_B", marker(finder, []secret.Part{{Value: finder.secrets[1].Value}}, secret.JSON))
		switch contentType {
		case "application/json":
			sameJSON(t, put, body, whole)
		case "application/x-www-form-urlencoded":
			sameForm(t, body, whole)
		}
	})
}

func sameJSON(t *testing.T, put *strings.Replacer, body []byte, got string) {
	var before, after any
	if json.Unmarshal(body, &before) != nil {
		return
	}
	if err := json.Unmarshal([]byte(got), &after); err != nil {
		t.Fatalf("%q became %q: %v", body, got, err)
	}
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	if hasPlaceholderKey(before) || enc.Encode(before) != nil {
		return // keys that become equal, or change their order
	}
	var have bytes.Buffer
	enc = json.NewEncoder(&have)
	enc.SetEscapeHTML(false)
	enc.Encode(after)
	if w := put.Replace(want.String()); w != have.String() {
		t.Fatalf("%q is read as %q, want %q", got, have.String(), w)
	}
}

func hasPlaceholderKey(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if strings.Contains(k, "$MSB_KEY") || hasPlaceholderKey(x) {
				return true
			}
		}
	case []any:
		for _, x := range v {
			if hasPlaceholderKey(x) {
				return true
			}
		}
	}
	return false
}

func sameForm(t *testing.T, body []byte, got string) {
	before, err1 := url.ParseQuery(string(body))
	after, err2 := url.ParseQuery(got)
	if err1 != nil || err2 != nil {
		return
	}
	put := strings.NewReplacer("$MSB_KEY_A", "<A2>------", "$MSB_KEY_B", "<B2>----------")
	count := 0
	for k, values := range before {
		for _, v := range values {
			count++
			if k = put.Replace(k); !contains(after[k], put.Replace(v)) {
				t.Fatalf("%q became %q: no %q=%q", body, got, k, put.Replace(v))
			}
		}
	}
	for _, values := range after {
		count -= len(values)
	}
	if count != 0 {
		t.Fatalf("%q became %q", body, got)
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func BenchmarkBody(b *testing.B) {
	list := benchSecrets(b, 32)
	f := NewFinder(list)
	plain := bytes.Repeat([]byte(`{"role":"user","content":"The quick brown fox jumps over the lazy dog, and $5 is what it costs."}, `), 10000)
	escaped := bytes.Repeat([]byte(`{"role":"user","content":"The quick brown\nfox \"jumps\" over the lazy dog, and costs it."}, `), 10000)
	form := bytes.Repeat([]byte(`name=The+quick+brown%20fox&value=jumps+over+the+lazy+dog&`), 10000)
	for _, bm := range []struct {
		name, contentType string
		text              []byte
	}{
		{"text", "text/plain", plain},
		{"json", "application/json", plain},
		{"json escapes", "application/json", escaped},
		{"form", "application/x-www-form-urlencoded", form},
		{"opaque", "application/octet-stream", plain},
		{"multipart", "multipart/form-data; boundary=b", append([]byte("--b\r\n\r\n"), plain...)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(bm.text)))
			b.ReportAllocs()
			for b.Loop() {
				r := f.Body(bytes.NewReader(bm.text), Body{ContentType: bm.contentType, Swap: all, Found: func(Occurrence, bool) error { return nil }})
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 32<<10)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchSecrets are half of the default kind, half shaped like real ones.
func benchSecrets(tb testing.TB, n int) []*secret.Secret {
	var list []*secret.Secret
	prefixes := []string{"ghp_", "sk-ant-api03-", "AKIA", "xoxb-", "glpat-", "npm_", "hf_", "sk_live_"}
	for i := range n {
		p := fmt.Sprintf("$MSB_SERVICE_%d_TOKEN", i)
		if i%2 == 1 {
			p = prefixes[i/2%len(prefixes)] + fmt.Sprintf("%x", uint64(i)*0x9E3779B97F4A7C15)
		}
		list = append(list, &secret.Secret{Name: fmt.Sprint("S", i), Placeholder: p})
	}
	return everywhere(list)
}
