package secret

import (
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// draws returns n random letters of an alphabet, as a service would.
func draws(rng *rand.Rand, n int, letters string) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[rng.IntN(len(letters))]
	}
	return string(b)
}

func webToken(header, claims string, signature int) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(claims)) + "." + enc.EncodeToString(make([]byte, signature))
}

// TestShape: for every kind of token the placeholder is another one of its
// kind, and no run of the value's own letters is in it.
func TestShape(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	alnum := func(n int) string { return draws(rng, n, alphanumeric) }
	summed := func(prefix string, n int) string {
		body := alnum(n)
		return prefix + body + checksum([]byte(body))
	}
	const hex = digits + "abcdef"
	tests := []struct {
		name, value, form string
		fixed             int // bytes at the beginning that stay
	}{
		{"GitHub, personal", summed("ghp_", 30), `^ghp_[0-9A-Za-z]{36}$`, 4},
		{"GitHub, OAuth", summed("gho_", 30), `^gho_[0-9A-Za-z]{36}$`, 4},
		{"GitHub, user", summed("ghu_", 30), `^ghu_[0-9A-Za-z]{36}$`, 4},
		{"GitHub, server", summed("ghs_", 30), `^ghs_[0-9A-Za-z]{36}$`, 4},
		{"GitHub, refresh", summed("ghr_", 70), `^ghr_[0-9A-Za-z]{76}$`, 4},
		{"GitHub without checksum", "ghp_" + alnum(36), `^ghp_[0-9A-Za-z]{36}$`, 4},
		{"GitHub, fine-grained", "github_pat_" + alnum(22) + "_" + alnum(59), `^github_pat_[0-9A-Za-z]{22}_[0-9A-Za-z]{59}$`, 11},
		{"npm", summed("npm_", 30), `^npm_[0-9A-Za-z]{36}$`, 4},
		{"Anthropic", "sk-ant-api03-" + draws(rng, 93, urlLetters) + "AA", `^sk-ant-api03-[\w-]{93}AA$`, 13},
		{"OpenAI", "sk-proj-" + draws(rng, 120, urlLetters), `^sk-proj-[\w-]{120}$`, 8},
		{"OpenAI, old", "sk-" + alnum(48), `^sk-[0-9A-Za-z]{48}$`, 3},
		{"AWS", "AKIA" + draws(rng, 16, upper+"234567"), `^AKIA[A-Z2-7]{16}$`, 4},
		{"AWS, temporary", "ASIA" + draws(rng, 16, upper+"234567"), `^ASIA[A-Z2-7]{16}$`, 4},
		{"AWS secret", draws(rng, 38, stdLetters) + "+/", `^[\w+/]{40}$`, 0},
		{"Slack", "xoxb-" + draws(rng, 12, digits) + "-" + draws(rng, 13, digits) + "-" + alnum(24), `^xoxb-[0-9]{12}-[0-9]{13}-[0-9A-Za-z]{24}$`, 5},
		{"GitLab", "glpat-" + draws(rng, 20, urlLetters), `^glpat-[\w-]{20}$`, 6},
		{"Hugging Face", "hf_" + draws(rng, 34, lower+upper), `^hf_[A-Za-z]{34}$`, 3},
		{"Stripe", "sk_live_" + alnum(99), `^sk_live_[0-9A-Za-z]{99}$`, 8},
		{"Google", "AIza" + draws(rng, 35, urlLetters), `^AIza[\w-]{35}$`, 4},
		{"SendGrid", "SG." + draws(rng, 22, urlLetters) + "." + draws(rng, 43, urlLetters), `^SG\.[\w-]{22}\.[\w-]{43}$`, 3},
		{"hexadecimal", draws(rng, 64, hex), `^[0-9a-f]{64}$`, 0},
		{"hexadecimal, upper case", draws(rng, 32, digits+"ABCDEF"), `^[0-9A-F]{32}$`, 0},
		{"digits", draws(rng, 24, digits), `^[0-9]{24}$`, 0},
		{"unknown prefix", "zz_" + alnum(40), `^[\w-]{43}$`, 0},
		{"bot token", draws(rng, 10, digits) + ":" + draws(rng, 35, urlLetters), `^[0-9]{10}:[\w-]{35}$`, 0},
		{"padded Base64", base64.StdEncoding.EncodeToString([]byte(alnum(31))), `^[\w+/]{42}==$`, 0},
		{"longest", alnum(maxPlaceholder), `^[0-9A-Za-z]+$`, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := newStore(t)
			v := load(t, st, tt.value)
			p, err := st.Shape(v)
			if err != nil {
				t.Fatal(err)
			}
			again, _ := st.Shape(v)
			switch {
			case !regexp.MustCompile(tt.form).MatchString(p) || len(p) != len(tt.value) || p[:tt.fixed] != tt.value[:tt.fixed]:
				t.Errorf("%s became %s", tt.value, p)
			case again == p:
				t.Error("drawn twice, the same came out")
			case !regexp.MustCompile(tt.form).MatchString(tt.value):
				t.Errorf("the test's own value %s has another form", tt.value)
			}
			for i := tt.fixed; i+window <= len(p); i++ {
				if strings.Contains(tt.value[tt.fixed:], p[i:i+window]) {
					t.Errorf("%s of the value shows in %s", p[i:i+window], p)
				}
			}
			if had, has := sumHolds([]byte(tt.value[tt.fixed:])), sumHolds([]byte(p[tt.fixed:])); had && !has {
				t.Errorf("the checksum of %s is wrong", p)
			}
			if len(st.blocks) != 1 {
				t.Errorf("%d blocks in use", len(st.blocks))
			}
			s := &Secret{Name: "A", Placeholder: p, Hosts: newSecret(t, st, "A", p, "").Hosts, Value: v}
			if _, err := NewSet([]*Secret{s}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestChecksum: the one token that is published with its parts.
func TestChecksum(t *testing.T) {
	if got := checksum([]byte("zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ")); got != "0mLq17" {
		t.Errorf("got %s", got)
	}
}

func TestShapeUUID(t *testing.T) {
	st := newStore(t)
	for value, form := range map[string]string{
		"f81d4fae-7dec-41d0-a765-00a0c91e6bf6": `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`,
		"F81D4FAE-7DEC-71D0-A765-00A0C91E6BF6": `^[0-9A-F]{8}-[0-9A-F]{4}-7[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$`,
		"f81d4fae-7dec-41d0-c765-00a0c91e6bf6": `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$`,
	} {
		if p, err := st.Shape(load(t, st, value)); err != nil || !regexp.MustCompile(form).MatchString(p) || p == value {
			t.Errorf("%s became %s, %v", value, p, err)
		}
	}
}

// TestShapeWebToken: a client can read who made a token and until when it
// holds, and nothing else that was in it (D6).
func TestShapeWebToken(t *testing.T) {
	nested := webToken(`{"alg":"none"}`, `{"sub":"inner"}`, 32)
	tests := []struct{ name, header, claims, wantHeader, wantClaims string }{
		{"usual", `{"alg":"RS256","typ":"JWT"}`, `{"iss":"https://i.example","sub":"alice","exp":1900000000}`, `{"alg":"RS256","typ":"JWT"}`, `{"iss":"https://i.example","exp":1900000000}`},
		{"all that stay", `{"typ":"at+jwt","alg":"ES256","kid":"k1","jku":"https://x"}`, `{"aud":["a","b"],"iat":1,"nbf":2,"exp":3,"iss":"i","scope":"all"}`, `{"typ":"at+jwt","alg":"ES256","kid":"k1"}`, `{"aud":["a","b"],"iat":1,"nbf":2,"exp":3,"iss":"i"}`},
		{"spaces and braces", `{ "alg" : "HS256" , "x":{"alg":"deep"} }`, `{"a":[{"iss":"deep"}],"b":"\"iss\":\"}\\","iss" :"i" , "exp": 1.5e9}`, `{"alg":"HS256"}`, `{"iss":"i","exp":1.5e9}`},
		{"nested tokens", `{"alg":"HS256","kid":"` + nested + `"}`, `{"act":{"token":"` + nested + `"},"iss":{"t":"x"},"aud":["` + nested + `"],"exp":1}`, `{"alg":"HS256"}`, `{"exp":1}`},
		{"a long text", `{"alg":"HS256"}`, `{"iss":"` + strings.Repeat("x", 300) + `","exp":1}`, `{"alg":"HS256"}`, `{"exp":1}`},
		{"nothing", `{}`, `{"sub":"1234567890"}`, `{}`, `{}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := newStore(t)
			value := webToken(tt.header, tt.claims, 32)
			p, err := st.Shape(load(t, st, value))
			if err != nil {
				t.Fatal(err)
			}
			got, was := strings.Split(p, "."), strings.Split(value, ".")
			for i, want := range []string{tt.wantHeader, tt.wantClaims} {
				text, err := base64.RawURLEncoding.DecodeString(got[i])
				if err != nil || !json.Valid(text) || len(got[i]) != len(was[i]) {
					t.Errorf("part %d is %q, %v", i, text, err)
				}
				if bare := strings.TrimRight(strings.TrimSuffix(string(text), "}"), " ") + "}"; bare != want {
					t.Errorf("part %d says %s, want %s", i, bare, want)
				}
			}
			if sig, err := base64.RawURLEncoding.Strict().DecodeString(got[2]); err != nil || len(sig) != 32 || got[2] == was[2] {
				t.Errorf("signature %q, %v", got[2], err)
			}
		})
	}
}

// TestShapeRefused: what would be guessed, or cannot be imitated.
func TestShapeRefused(t *testing.T) {
	for value, want := range map[string]string{
		"12345678901234567":                        "less than 64 bits", // 56 bits
		"AKIA234567ABCD":                           "less than 64 bits",
		"sk_live_0123456789":                       "less than 64 bits",
		"================":                         "less than 64 bits",
		"correct horse battery staple":             "other characters",
		"p\u00e4ssw\u00f6rt-0123456789abcdefgh":    "other characters",
		strings.Repeat("0a", 513):                  "longer than 1024",
		webToken(`{"alg":"none"}`, `{"exp":1}`, 0): "less than 64 bits",
	} {
		st := newStore(t)
		p, err := st.Shape(load(t, st, value))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, %v", value, p, err)
		} else if strings.Contains(err.Error(), value) {
			t.Errorf("the error shows the value: %v", err)
		}
	}
	st := newStore(t)
	v := load(t, st, "0123456789abcdef0123456789abcdef")
	st.Release(v)
	if _, err := st.Shape(v); err == nil {
		t.Error("a released value was drawn")
	}
	if _, err := st.Shape(Value{}); err == nil {
		t.Error("no value was drawn")
	}
}

// TestShows: what by chance is a run of the value is drawn again.
func TestShows(t *testing.T) {
	d := &drawing{text: []byte("prefix-abcdefgh"), fixed: make([]bool, 15)}
	for i := range 7 {
		d.fixed[i] = true
	}
	if !d.shows([]byte("xxabcdefghxx")) || d.shows([]byte("xxabcdefgxx")) || d.shows([]byte("prefix-abcdefg")) {
		t.Error("wrong")
	}
}

// TestShapeNeverShows: in so long a number a run of eight digits comes up
// again in every hundredth drawing.
func TestShapeNeverShows(t *testing.T) {
	st := newStore(t)
	value := draws(rand.New(rand.NewPCG(3, 4)), maxPlaceholder, digits)
	v := load(t, st, value)
	for range 500 {
		p, err := st.Shape(v)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(p) - window + 1 {
			if strings.Contains(value, p[i:i+window]) {
				t.Fatalf("%s shows", p[i:i+window])
			}
		}
	}
}

func FuzzShape(f *testing.F) {
	f.Add("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")
	f.Add(webToken(`{"alg":"RS256"}`, `{"iss":"a","aud":["b"],"x":{"y":"\"}"}}`, 32))
	f.Add("f81d4fae-7dec-41d0-a765-00a0c91e6bf6")
	f.Add("a.b:c==")
	st := newStore(f)
	f.Fuzz(func(t *testing.T, value string) {
		if value == "" || len(value) > maxPlaceholder || strings.ContainsAny(value, "\r\n\x00") {
			return
		}
		v := load(t, st, value)
		defer st.Release(v)
		p, err := st.Shape(v)
		if err != nil {
			return
		}
		if len(p) != len(value) || checkPlaceholder(p) != nil {
			t.Fatalf("%q became %q", value, p)
		}
	})
}

func BenchmarkShape(b *testing.B) {
	st, err := NewStore(0)
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	v, err := tryLoad(b, st, strings.Repeat("0123456789abcdef", 64), 1024)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := st.Shape(v); err != nil {
			b.Fatal(err)
		}
	}
}
