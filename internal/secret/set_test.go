package secret

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/cutoutdev/cutout/internal/hostname"
)

func newSecret(t *testing.T, st *Store, name, placeholder, value string) *Secret {
	t.Helper()
	s := &Secret{Name: name, Placeholder: placeholder, Hosts: []Host{{Pattern: hostname.Exact("good.test"), Port: 443}}}
	if value != "" {
		s.Value = load(t, st, value)
	}
	return s
}

// TestNewSet holds D6: a placeholder that could be taken for another, or that
// shows a value, or that a value brings along.
func TestNewSet(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString([]byte("user:s3cretvalue-0001"))
	type row struct{ name, placeholder, value string }
	tests := []struct {
		name string
		rows []row
		want string // in the error; "" = accepted
	}{
		{"none", nil, ""},
		{"two", []row{{"A", "$MSB_AAAA", "s3cretvalue-0001"}, {"B", "$MSB_BBBB", "s3cretvalue-0002"}}, ""},
		{"no value yet", []row{{"A", "$MSB_AAAA", ""}}, ""},
		{"one value twice", []row{{"A", "$MSB_AAAA", "s3cretvalue-0001"}, {"B", "$MSB_BBBB", "s3cretvalue-0001"}}, ""},
		{"one name twice", []row{{"A", "$MSB_AAAA", ""}, {"A", "$MSB_BBBB", ""}}, "given twice"},
		{"one placeholder twice", []row{{"A", "$MSB_AAAA", ""}, {"B", "$MSB_AAAA", ""}}, "same placeholder"},
		{"part of an earlier one", []row{{"A", "$MSB_KEY_A", ""}, {"B", "$MSB_KEY", ""}}, "of B is part of that of A"},
		{"part of a later one", []row{{"A", "$MSB_KEY", ""}, {"B", "x$MSB_KEYx", ""}}, "of A is part of that of B"},
		{"in its value", []row{{"A", "$MSB_AAAA", "x$MSB_AAAAx"}}, "value of A holds the placeholder of A"},
		{"in another's value", []row{{"A", "$MSB_AAAA", "s3cretvalue-0001"}, {"B", "$MSB_BBBB", "x$MSB_AAAAx"}}, "value of B holds the placeholder of A"},
		{"is its value", []row{{"A", "s3cretvalue-0001", "s3cretvalue-0001"}}, "placeholder of A holds the value of A"},
		{"holds another's value", []row{{"A", "$MSB_AAAA", "s3cretvalue-0001"}, {"B", "xs3cretvalue-0001x", "s3cretvalue-0002"}}, "placeholder of B holds the value of A"},
		{"holds a value in Base64", []row{{"A", b64, "s3cretvalue-0001"}}, "placeholder of A holds the value of A"},
		{"case alone differs", []row{{"A", "$MSB_AAAA", ""}, {"a", "$MSB_aaaa", ""}}, "same placeholder"},
		{"part but for case", []row{{"A", "$MSB_KEY", ""}, {"B", "x$msb_keyx", ""}}, "of A is part of that of B"},
		{"part in Base64", []row{{"A", "$MSB_KEY_A", ""}, {"B", base64.StdEncoding.EncodeToString([]byte("me:$MSB_KEY_A!")), ""}}, "of A is part of that of B"},
		{"part of an earlier one in hex", []row{{"A", "x244D53425f4B4559x", ""}, {"B", "$MSB_KEY", ""}}, "of B is part of that of A"},
		{"part in hex", []row{{"A", "$MSB_KEY", ""}, {"B", "x244D53425f4B4559x", ""}}, "of A is part of that of B"},
		{"part partly escaped", []row{{"A", "$MSB_KEY", ""}, {"B", "x%24M%53B_KEYx", ""}}, "of A is part of that of B"},
		{"part in JSON", []row{{"A", "$MSB<KEY>", ""}, {"B", `$MSB\u003cKEY\u003e`, ""}}, "of A is part of that of B"},
		{"escaped in a value", []row{{"A", "$MSB_KEY", "x%24MSB_KEYx"}}, "value of A holds the placeholder of A"},
		{"in Base64 in a value", []row{{"A", "$MSB_KEY_A", base64.URLEncoding.EncodeToString([]byte("me:$MSB_KEY_A!"))}}, "value of A holds the placeholder of A"},
		{"in hex in a value", []row{{"A", "$MSB_KEY", "244d53425f4b4559"}}, "value of A holds the placeholder of A"},
		{"holds a value but for case", []row{{"A", "S3CRETvalue-0001", "s3cretvalue-0001"}}, "placeholder of A holds the value of A"},
		{"holds a value in percent", []row{{"A", "s3cretvalue%2D0001", "s3cretvalue-0001"}}, "placeholder of A holds the value of A"},
		{"holds a value in hex", []row{{"A", "733363726574" + "76616c75652d30303031", "s3cretvalue-0001"}}, "placeholder of A holds the value of A"},
		{"short value", []row{{"A", "$MSB_AAAA", "4711"}}, "value of A is shorter than 8"},
		{"short value, allowed", []row{{"PIN", "$MSB_PIN_4711", "4711"}}, ""},
		{"short", []row{{"A", "$MSB_A", ""}}, "shorter"},
		{"long", []row{{"A", strings.Repeat("x", 1025), ""}}, "longer"},
		{"space", []row{{"A", "$MSB AAAA", ""}}, "spaces"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := newStore(t)
			var secrets []*Secret
			for _, r := range tt.rows {
				s := newSecret(t, st, r.name, r.placeholder, r.value)
				s.Short = r.name == "PIN"
				secrets = append(secrets, s)
			}
			_, err := NewSet(secrets)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && err == nil:
				t.Errorf("accepted, want error with %q", tt.want)
			case err != nil && !strings.Contains(err.Error(), tt.want):
				t.Errorf("error %q, want %q", err, tt.want)
			case err != nil && strings.Contains(err.Error(), "s3cretvalue"):
				t.Errorf("error holds a value: %q", err)
			}
			if n := len(st.blocks); n != count(tt.rows, func(r row) bool { return r.value != "" }) {
				t.Errorf("%d blocks in use after NewSet", n)
			}
		})
	}
}

// TestShortValuesAreNotSearched: a short value stands anywhere by chance.
func TestShortValuesAreNotSearched(t *testing.T) {
	st := newStore(t)
	n, err := NewNeedles([]*Secret{newSecret(t, st, "PIN", "$MSB_PIN0", "4711"), newSecret(t, st, "KEY", "$MSB_KEY0", "s3cretvalue-0001")})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	h, _, found, err := n.Next([]byte("4711 NDcxMQ s3cretvalue-0001"), true)
	if err != nil || !found || n.Form(h.ID).Secret.Name != "KEY" {
		t.Errorf("found %v %v, %v", found, h, err)
	}
}

func count[T any](list []T, is func(T) bool) (n int) {
	for _, x := range list {
		if is(x) {
			n++
		}
	}
	return n
}
