package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePublish(t *testing.T) {
	tests := map[string]struct {
		want []string
		err  string // part of the error
	}{
		"8080:80":              {[]string{"127.0.0.1:8080:80/tcp"}, ""},
		"80":                   {[]string{"127.0.0.1:0:80/tcp"}, ""},
		"0:80":                 {[]string{"127.0.0.1:0:80/tcp"}, ""},
		"127.0.0.1::80":        {[]string{"127.0.0.1:0:80/tcp"}, ""},
		"localhost:8080:80":    {[]string{"127.0.0.1:8080:80/tcp"}, ""},
		"0.0.0.0:8080:80/tcp":  {[]string{"0.0.0.0:8080:80/tcp"}, ""},
		"[::1]:8080:80":        {[]string{"[::1]:8080:80/tcp"}, ""},
		"[::1]::80":            {[]string{"[::1]:0:80/tcp"}, ""},
		"[::ffff:1.2.3.4]:1:2": {[]string{"1.2.3.4:1:2/tcp"}, ""},
		"5353:53/udp":          {[]string{"127.0.0.1:5353:53/udp"}, ""},
		"8000-8002:80-82":      {[]string{"127.0.0.1:8000:80/tcp", "127.0.0.1:8001:81/tcp", "127.0.0.1:8002:82/tcp"}, ""},
		"0:80-81":              {[]string{"127.0.0.1:0:80/tcp", "127.0.0.1:0:81/tcp"}, ""},

		"":                 {nil, "not a port of the guest"},
		"x:80":             {nil, `"x" is not a port of this machine`},
		"8080:":            {nil, "not a port of the guest"},
		"8080:0":           {nil, "not a port of the guest"},
		":80":              {[]string{"127.0.0.1:0:80/tcp"}, ""},
		":8080:80":         {nil, "the address is empty"},
		"8080:70000":       {nil, "not a port of the guest"},
		"8080:80,81":       {nil, "not a port of the guest"},
		"80:80/sctp":       {nil, `unknown protocol "sctp"`},
		"80:80/":           {nil, `unknown protocol ""`},
		"8000-8002:80":     {nil, "not equally long"},
		"8002-8000:80-82":  {nil, "not a port of this machine"},
		"example.com:1:2":  {nil, "is not an address"},
		"fe80::1%lo:1:2":   {nil, "is not an address"},
		"1.2.3.4:1:2:3":    {nil, "is not an address"},
		"[::1]:1:2/udp/":   {nil, "unknown protocol"},
		"::1:8080:80":      {[]string{"[::1]:8080:80/tcp"}, ""}, // as docker
		"[::1:8080:80":     {nil, "is not an address"},
		"127.0.0.1:-1:80":  {nil, "not a port of this machine"},
		" 8080:80":         {nil, "not a port of this machine"},
		"00000008080:80":   {nil, "not a port of this machine"},
		"65535-65536:1-2":  {nil, "not a port of this machine"},
		"127.1:8080:80":    {nil, "is not an address"},
		"0x7f000001:1:80":  {nil, "is not an address"},
		"[127.0.0.1]:1:80": {[]string{"127.0.0.1:1:80/tcp"}, ""},
	}
	for text, tt := range tests {
		t.Run(text, func(t *testing.T) {
			ports, err := ParsePublish(text)
			var got []string
			for _, p := range ports {
				got = append(got, p.String())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			switch {
			case tt.err == "" && err != nil:
				t.Error(err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || Hint(err) == ""):
				t.Errorf("error is %v, want one with %q and a hint", err, tt.err)
			}
		})
	}
}

func TestPublishedTogether(t *testing.T) {
	tests := []struct {
		name string
		all  []string
		err  string
	}{
		{"twice", []string{"8080:80", "8080:81"}, "take the same port"},
		{"in a range", []string{"8080:80", "8079-8081:79-81"}, "take the same port"},
		{"other address", []string{"8080:80", "[::1]:8080:80"}, ""},
		{"other protocol", []string{"53:53", "53:53/udp"}, ""},
		{"any free, twice", []string{"80", "80"}, ""},
		{"too many", []string{"1000-1256:1000-1256"}, "more than 256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parsePublished(tt.all)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error is %v, want %q", err, tt.err)
			}
		})
	}
}
