package rewrite

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/secret"
)

func newStore(t testing.TB) *secret.Store {
	t.Helper()
	st, err := secret.NewStore(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

func load(t testing.TB, st *secret.Store, value string) secret.Value {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		io.WriteString(w, value)
		w.Close()
	}()
	v, err := st.ReadValue(int(r.Fd()), len(value))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// secrets returns A, B, … with placeholders $MSB_KEY_A, … and the values.
func secrets(t testing.TB, values ...string) []*secret.Secret {
	st := newStore(t)
	var out []*secret.Secret
	for i, v := range values {
		name := string(rune('A' + i))
		out = append(out, &secret.Secret{Name: name, Placeholder: "$MSB_KEY_" + name, Value: load(t, st, v)})
	}
	return out
}

// lines prints occurrences as "secret position field".
func lines(list []Occurrence) []string {
	names := map[Position]string{
		Header: "header", Basic: "basic", Query: "query", Path: "path", InBody: "body",
		Trailer: "trailer", HeaderName: "name", Method: "method", Authority: "authority", Fragment: "fragment",
	}
	var out []string
	for _, o := range list {
		out = append(out, strings.TrimSpace(o.Secret.Name+" "+names[o.Position]+" "+o.Field))
	}
	return out
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestHead(t *testing.T) {
	const P = "$MSB_KEY_A"
	finder := NewFinder(secrets(t, "s3cretvalue-0001", "s3cretvalue-0002"))
	type head struct {
		method, target, authority string
		header                    http.Header
	}
	tests := []struct {
		name string
		in   head
		want []string
	}{
		{"none", head{"GET", "/a?b=c", "good.test", http.Header{"Accept": {"*/*"}}}, nil},
		{"bearer", head{header: http.Header{"Authorization": {"Bearer " + P}}}, []string{"A header Authorization"}},
		{"two in one value", head{header: http.Header{"X-Api-Key": {P + "$MSB_KEY_B"}}}, []string{"A header X-Api-Key", "B header X-Api-Key"}},
		{"second value", head{header: http.Header{"X-Api-Key": {"a", P}}}, []string{"A header X-Api-Key"}},
		{"cookie", head{header: http.Header{"Cookie": {"a=b; c=" + P}}}, []string{"A header Cookie"}},
		{"escaped in a header is text", head{header: http.Header{"Referer": {"%24MSB_KEY_A"}}}, nil},
		{"longer look-alike", head{header: http.Header{"X-Api-Key": {"$MSB_KEY_"}}}, nil},

		{"basic password", head{header: http.Header{"Authorization": {"Basic " + b64("u:"+P)}}}, []string{"A basic Authorization"}},
		{"basic user", head{header: http.Header{"Authorization": {"Basic " + b64(P+":")}}}, []string{"A basic Authorization"}},
		{"basic whole", head{header: http.Header{"Authorization": {"Basic " + b64(P)}}}, []string{"A basic Authorization"}},
		{"basic both", head{header: http.Header{"Authorization": {"Basic " + b64(P+":$MSB_KEY_B")}}}, []string{"A basic Authorization", "B basic Authorization"}},
		{"basic scheme and space", head{header: http.Header{"Authorization": {" \tbAsIC \t " + b64("u:"+P) + " \t"}}}, []string{"A basic Authorization"}},
		{"basic unpadded", head{header: http.Header{"Authorization": {"Basic " + strings.TrimRight(b64("us:"+P), "=")}}}, []string{"A basic Authorization"}},
		{"basic URL alphabet", head{header: http.Header{"Authorization": {"Basic " + base64.URLEncoding.EncodeToString([]byte("\xff\xfe>?:"+P))}}}, []string{"A basic Authorization"}},
		{"basic to the proxy is no credential", head{header: http.Header{"Proxy-Authorization": {"Basic " + b64("u:"+P)}}}, []string{"A header Proxy-Authorization"}},
		{"basic elsewhere is no credential", head{header: http.Header{"X-Note": {"basic " + b64("u:"+P)}}}, []string{"A header X-Note"}},
		{"basic raw", head{header: http.Header{"Authorization": {"Basic " + P}}}, []string{"A header Authorization"}},
		{"no basic", head{header: http.Header{"Authorization": {"Basically " + b64("u:"+P)}}}, nil},
		{"basic not Base64", head{header: http.Header{"Authorization": {"Basic !" + b64("u:"+P)}}}, nil},
		{"basic alone", head{header: http.Header{"Authorization": {"Basic", "Basic ", "basic\t"}}}, nil},

		{"query", head{target: "/x?key=" + P}, []string{"A query"}},
		{"query name", head{target: "/x?" + P + "=1"}, []string{"A query"}},
		{"query percent", head{target: "/x?key=%24MSB_KEY_A"}, []string{"A query"}},
		{"query all percent, both cases", head{target: "/x?key=%24%4d%53%42%5f%4B%45%59%5F%41"}, []string{"A query"}},
		{"query twice escaped is text", head{target: "/x?key=%2524MSB_KEY_A"}, nil},
		{"query bad escape before", head{target: "/x?k=%zz%2%24MSB_KEY_A"}, []string{"A query"}},
		{"path", head{target: "/v1/" + P + "/x"}, []string{"A path"}},
		{"path percent", head{target: "/v1/$MSB%5fKEY_A/x?y"}, []string{"A path"}},
		{"path and query", head{target: "/$MSB%5fKEY_A?k=" + P}, []string{"A query", "A path"}},
		{"fragment", head{target: "/x?y#" + P}, []string{"A fragment"}},
		{"absolute path", head{target: "http://good.test/" + P}, []string{"A path"}},
		{"absolute authority", head{target: "http://" + P + "/x"}, []string{"A authority"}},
		{"absolute userinfo", head{target: "http://u:%24MSB_KEY_A@good.test"}, []string{"A authority"}},
		{"authority form", head{target: P + ":443"}, []string{"A authority"}},

		{"method", head{method: P}, []string{"A method"}},
		{"method in lower case", head{method: "$msb_key_a"}, []string{"A method"}},
		{"authority", head{authority: "$msb_key_A.good.test"}, []string{"A authority"}},
		// net/http canonicalises names: $MSB_KEY_A arrives as $msb_key_a.
		{"name", head{header: http.Header{http.CanonicalHeaderKey(P): {"x"}}}, []string{"A name $msb_key_a"}},
		{"part of a name", head{header: http.Header{"X-$Msb_key_b-Y": {"x"}}}, []string{"B name X-$Msb_key_b-Y"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := lines(finder.Head(tt.in.method, tt.in.target, tt.in.authority, tt.in.header))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := NewFinder(nil).Head(P, P, P, http.Header{P: {P}}); got != nil {
		t.Errorf("a finder of none found %v", got)
	}
}

func TestPlaceholderWithPercent(t *testing.T) {
	finder := NewFinder([]*secret.Secret{{Name: "A", Placeholder: "%41%42%43"}, {Name: "B", Placeholder: "ABC?DEFG"}})
	got := lines(finder.Head("GET", "/%41%42%43/ABC?DEFG", "", nil))
	if diff := cmp.Diff([]string{"B path", "A path"}, got); diff != "" && len(got) != 2 {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTrailer(t *testing.T) {
	finder := NewFinder(secrets(t, "s3cretvalue-0001"))
	got := lines(finder.Trailer(http.Header{"Authorization": {"$MSB_KEY_A"}, "$msb_key_a": {""}}))
	if diff := cmp.Diff([]string{"A trailer Authorization", "A name $msb_key_a"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNever(t *testing.T) {
	for p := Header; p <= Fragment; p++ {
		want := p == HeaderName || p == Method || p == Authority || p == Fragment
		if p.Never() != want {
			t.Errorf("position %d: Never is %v", p, p.Never())
		}
	}
}

func TestCredentialHeader(t *testing.T) {
	yes := "Authorization X-Api-Key Api-Key X-Auth-Token X-Access-Token Private-Token X-Goog-Api-Key X-Vault-Token " +
		"authorization x-API-key Dd-Api-Key X-Amz-Authorization X-Shopify-Access-Token X-Foo-Auth-Token"
	// ATTACKS C6: what an API stores, and what proxies tell each other.
	no := "Proxy-Authorization proxy-authorization Cookie Referer User-Agent Forwarded X-Forwarded-For Via Host Origin Title Subject " +
		"X-Amz-Meta-A X-Amz-Meta-Api-Key x-goog-meta-authorization X-Ms-Meta-Access-Token X-Object-Meta-Auth-Token X-Forwarded-Access-Token " +
		"X-Audit-Log-Reason Baggage Content-Disposition If-None-Match Idempotency-Key Key Token Apikey-X"
	for name := range strings.FieldsSeq(yes) {
		if !CredentialHeader(name) {
			t.Errorf("%s is none", name)
		}
	}
	for name := range strings.FieldsSeq(no) {
		if CredentialHeader(name) {
			t.Errorf("%s is one", name)
		}
	}
}

// fakeSeal shows parts as they would be written, values as {name}.
func fakeSeal(list []*secret.Secret) sealFunc {
	return func(parts []secret.Part, enc secret.Encoding) (string, error) {
		var b strings.Builder
		for _, p := range parts {
			b.WriteString(p.Text)
			for _, s := range list {
				if p.Value == s.Value {
					b.WriteString("{" + s.Name + "}")
				}
			}
		}
		return fmt.Sprintf("<%d %s>", enc, b.String()), nil
	}
}

func TestSubstitute(t *testing.T) {
	list := secrets(t, "s3cretvalue-0001", "$MSB_KEY_A") // B's value looks like A's placeholder
	finder := NewFinder(list)
	all := func(Occurrence) bool { return true }
	onlyB := func(o Occurrence) bool { return o.Secret.Name == "B" }
	tests := []struct {
		name  string
		allow func(Occurrence) bool
		field string
		value string
		want  string
	}{
		{"bearer", all, "Authorization", "Bearer $MSB_KEY_A", "Bearer <0 {A}>"},
		{"api key", all, "X-Api-Key", "$MSB_KEY_A", "<0 {A}>"},
		{"several", all, "Authorization", "a $MSB_KEY_A$MSB_KEY_B z", "a <0 {A}><0 {B}> z"},
		{"not recursive", all, "X-Api-Key", "$MSB_KEY_B", "<0 {B}>"},
		{"not allowed", onlyB, "Authorization", "$MSB_KEY_A $MSB_KEY_B", "$MSB_KEY_A <0 {B}>"},
		{"basic", all, "Authorization", "BASIC  " + b64("u:$MSB_KEY_A") + " ", "BASIC  <1 u:{A}> "},
		{"basic both", all, "Authorization", "Basic " + b64("$MSB_KEY_A:$MSB_KEY_B"), "Basic <1 {A}:{B}>"},
		{"basic in part", onlyB, "Authorization", "Basic " + b64("$MSB_KEY_A:$MSB_KEY_B"), "Basic <1 $MSB_KEY_A:{B}>"},
		{"basic not allowed", onlyB, "Authorization", "Basic " + b64("u:$MSB_KEY_A"), "Basic " + b64("u:$MSB_KEY_A")},
		{"no credential header", all, "X-Amz-Meta-A", "$MSB_KEY_A", "$MSB_KEY_A"},
		{"cookie", all, "Cookie", "$MSB_KEY_A", "$MSB_KEY_A"},
		{"proxy", all, "Proxy-Authorization", "Basic " + b64("u:$MSB_KEY_A"), "Basic " + b64("u:$MSB_KEY_A")},
		{"none", all, "Authorization", "Bearer abc", "Bearer abc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{tt.field: {"first", tt.value}}
			if _, err := finder.Substitute(h, "/", tt.allow, fakeSeal(list)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(http.Header{tt.field: {"first", tt.want}}, h); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("failure changes nothing", func(t *testing.T) {
		h := http.Header{"Authorization": {"$MSB_KEY_A $MSB_KEY_B"}}
		n := 0
		_, err := finder.Substitute(h, "/", all, func([]secret.Part, secret.Encoding) (string, error) {
			if n++; n == 2 {
				return "", errors.New("full")
			}
			return "marker", nil
		})
		if err == nil || h.Get("Authorization") != "$MSB_KEY_A $MSB_KEY_B" {
			t.Errorf("error %v, header %q", err, h)
		}
	})
}

// TestHeadAgrees: what Substitute replaces is what Head tells, so that
// nothing is written that was not judged.
func TestHeadAgrees(t *testing.T) {
	list := secrets(t, "s3cretvalue-0001", "s3cretvalue-0002")
	finder := NewFinder(list)
	for _, v := range []string{
		"Bearer $MSB_KEY_A", "Basic " + b64("$MSB_KEY_A:$MSB_KEY_A"), "Basic $MSB_KEY_B", "basic  " + b64("$MSB_KEY_B"),
		"$MSB_KEY_A$MSB_KEY_B", "Basic\t" + b64("x"), "Basic " + b64("$MSB_KEY_A") + " $MSB_KEY_B",
	} {
		for _, name := range []string{"Authorization", "X-Api-Key", "Cookie", "Proxy-Authorization"} {
			h := http.Header{name: {v}}
			told := 0
			for _, o := range finder.Head("GET", "/", "good.test", h) {
				if o.Position == Basic || o.Position == Header && CredentialHeader(o.Field) {
					told++
				}
			}
			written := 0
			finder.Substitute(h, "/", func(Occurrence) bool { return true }, func(parts []secret.Part, _ secret.Encoding) (string, error) {
				for _, p := range parts {
					if !p.Value.IsZero() {
						written++
					}
				}
				return "m", nil
			})
			if told != written {
				t.Errorf("%s: %q: %d told, %d written", name, v, told, written)
			}
		}
	}
}

func TestSubstituteTarget(t *testing.T) {
	list := secrets(t, "s3cretvalue-0001", "s3cretvalue-0002")
	list[0].Surfaces = &secret.Surfaces{Query: true, Path: true}
	list[1].Surfaces = &secret.Surfaces{Query: true}
	finder := NewFinder(list)
	const a, b = "<2 {A}>", "<2 {B}>"
	tests := []struct{ name, target, want string }{
		{"path", "/v1/$MSB_KEY_A/x%2fy", "/v1/" + a + "/x%2fy"},
		{"query value", "/?key=$MSB_KEY_A&x=%7c|", "/?key=" + a + "&x=%7c|"},
		{"query name", "/?$MSB_KEY_A=1", "/?" + a + "=1"},
		{"escaped", "/%24MSB%5fKEY_%41?%24%4dSB_KEY_B", "/" + a + "?" + b},
		{"escaped twice", "/?k=%2524MSB_KEY_A", "/?k=%2524MSB_KEY_A"},
		{"surface off", "/$MSB_KEY_B?k=$MSB_KEY_B", "/$MSB_KEY_B?k=" + b},
		{"absolute form", "https://good.test/$MSB_KEY_A", "https://good.test/" + a},
		{"authority", "https://$MSB_KEY_A/", "https://$MSB_KEY_A/"},
		{"fragment", "/#$MSB_KEY_A", "/#$MSB_KEY_A"},
		{"several", "/$MSB_KEY_A$MSB_KEY_A?$MSB_KEY_A", "/" + a + a + "?" + a},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := finder.Substitute(http.Header{}, tt.target, func(Occurrence) bool { return true }, fakeSeal(list))
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestAllowed(t *testing.T) {
	named := func(names ...string) *secret.Surfaces { return &secret.Surfaces{Headers: names} }
	tests := []struct {
		name     string
		surfaces *secret.Surfaces // nil: the default
		position Position
		field    string
		want     bool
	}{
		{"default credential header", nil, Header, "x-api-key", true},
		{"default basic", nil, Basic, "Authorization", true},
		{"default other header", nil, Header, "X-Other", false},
		{"default query", nil, Query, "", false},
		{"default path", nil, Path, "", false},
		{"default body", nil, InBody, "", false},
		{"only named", named("X-Other"), Header, "Authorization", false},
		{"named", named("X-Other"), Header, "x-other", true},
		{"named cookie", named("Cookie"), Header, "Cookie", true},
		{"all headers", named("*"), Header, "X-Amz-Meta-A", true},
		{"all but cookie", named("*"), Header, "Cookie", false},
		{"all but referer", named("*"), Header, "Referer", false},
		{"all but user agent", named("*"), Header, "User-Agent", false},
		{"all but via", named("*"), Header, "Via", false},
		{"all but forwarded", named("*"), Header, "Forwarded", false},
		{"all but x-forwarded", named("*"), Header, "X-Forwarded-Api-Key", false},
		{"host never", named("*", "Host"), Header, "Host", false},
		{"proxy authorization never", named("Proxy-Authorization"), Header, "Proxy-Authorization", false},
		{"framing never", named("Content-Length"), Header, "Content-Length", false},
		{"all headers are not basic", named("*"), Basic, "Authorization", false},
		{"query", &secret.Surfaces{Query: true}, Query, "", true},
		{"path", &secret.Surfaces{Path: true}, Path, "", true},
		{"body", &secret.Surfaces{Body: []secret.BodyPart{{}}}, InBody, "", true},
		{"trailer never", &secret.Surfaces{Header: true, Headers: []string{"*"}}, Trailer, "X-Api-Key", false},
		{"fragment never", &secret.Surfaces{Query: true, Path: true}, Fragment, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Occurrence{Secret: &secret.Secret{Surfaces: tt.surfaces}, Position: tt.position, Field: tt.field}
			if got := Allowed(o); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
