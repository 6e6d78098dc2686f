package secret

import (
	"encoding/base64"
	"strings"
	"testing"
)

// TestWriteLogin: a login goes out in one write, in the form that was asked
// for, and nothing of it stays in the scratch memory. What is no login is not
// written.
func TestWriteLogin(t *testing.T) {
	st := newStore(t)
	for name, tt := range map[string]struct {
		value string
		as    Login
		want  string // "" = refused
	}{
		"basic":              {"me:s3cret-0001", BasicLogin, base64.StdEncoding.EncodeToString([]byte("me:s3cret-0001"))},
		"basic, no password": {"user-0001:", BasicLogin, base64.StdEncoding.EncodeToString([]byte("user-0001:"))},
		"basic, long":        {"me:" + strings.Repeat("x", 9000), BasicLogin, base64.StdEncoding.EncodeToString([]byte("me:" + strings.Repeat("x", 9000)))},
		"basic, too long":    {"me:" + strings.Repeat("x", 12300), BasicLogin, ""},
		"SOCKS":              {"me:s3:cret-0001", SOCKSLogin, "\x01\x02me\x0cs3:cret-0001"},
		"SOCKS, no password": {"user-0001:", SOCKSLogin, ""},
		"SOCKS, too long":    {"me:" + strings.Repeat("x", 256), SOCKSLogin, ""},
		"no colon":           {"me-s3cret-0001", BasicLogin, ""},
		"no user":            {":s3cret-0001", SOCKSLogin, ""},
		"fields":             {"Authorization=Bearer%20s3cret-0001, x-team = t=1%2C2", FieldsLogin, "Authorization: Bearer s3cret-0001\r\nx-team: t=1,2\r\n"},
		"fields, empty":      {"x-api-key=,x-other=%C3%A9", FieldsLogin, "x-api-key: \r\nx-other: \xc3\xa9\r\n"},
		"fields, no name":    {"=s3cret-0001", FieldsLogin, ""},
		"fields, no value":   {"s3cret-0001", FieldsLogin, ""},
		"fields, a comma":    {"a=s3cret-0001,", FieldsLogin, ""},
		"fields, a line":     {"a=s3cret-0001%0d%0aHost: evil.test", FieldsLogin, ""},
		"fields, no escape":  {"a=s3cret-0001%zz", FieldsLogin, ""},
		"fields, cut escape": {"a=s3cret-0001%4", FieldsLogin, ""},
		"fields, a space":    {"x key=s3cret-0001", FieldsLogin, ""},
		"fields, too long":   {"a=" + strings.Repeat("x", 16<<10-4), FieldsLogin, ""},
	} {
		rec := &recorder{}
		err := st.WriteLogin(rec, load(t, st, tt.value), tt.as, "<", ">")
		if (err == ErrFields) != (tt.as == FieldsLogin && tt.want == "") {
			t.Errorf("%s: %v", name, err)
		}
		if want := "<" + tt.want + ">"; tt.want != "" && (err != nil || rec.String() != want || len(rec.writes) != 1) {
			t.Errorf("%s: wrote %q, %v", name, rec, err)
		}
		if tt.want == "" && (err != ErrLogin && err != ErrFields || rec.String() != "") {
			t.Errorf("%s: wrote %q, %v", name, rec, err)
		}
		if strings.Trim(string(st.mem.bytes[st.limit:]), "\x00") != "" {
			t.Errorf("%s: the slot was not zeroed", name)
		}
	}
	gone := load(t, st, "me:s3cret-0001")
	st.Release(gone)
	if err := st.WriteLogin(&recorder{}, gone, BasicLogin, "", ""); err == nil {
		t.Error("a released login is written")
	}
}
