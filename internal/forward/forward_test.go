package forward

import (
	"bufio"
	"encoding/base64"
	"io"
	"strings"
	"testing"
)

const password = "correct-horse-battery"

var basicWord = base64.StdEncoding.EncodeToString([]byte(User + ":" + password))

// ask is what the protocol that text begins with makes of it.
func ask(text string) (Target, error) {
	r := bufio.NewReader(strings.NewReader(text))
	if strings.HasPrefix(text, "\x05") {
		return (&socksClient{r: r, w: io.Discard}).ask(password)
	}
	return (&connectClient{r: r, w: io.Discard}).ask(password)
}

func connectTo(target, field string) string {
	return "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n" + field + "\r\n"
}

func socksTo(login, target string) string {
	return "\x05\x01\x02\x01" + login + "\x05\x01\x00" + target
}

const login = "\x06cutout\x15" + password

// Who does not show the credential, or asks for something else than a tunnel,
// comes nowhere.
func TestAsk(t *testing.T) {
	proof := "Proxy-Authorization: Basic " + basicWord + "\r\n"
	for name, tt := range map[string]struct{ text, host string }{
		"connect":                {connectTo("good.test:443", proof), "good.test"},
		"connect to an address":  {connectTo("[2001:db8::1]:443", proof), ""},
		"socks":                  {socksTo(login, "\x03\x09good.test\x01\xbb"), "good.test"},
		"connect, no credential": {connectTo("good.test:443", ""), "refused"},
		"connect, a wrong one":   {connectTo("good.test:443", "Proxy-Authorization: Basic Y3V0b3V0Ong=\r\n"), "refused"},
		"connect, two":           {connectTo("good.test:443", proof+proof), "refused"},
		"connect, for a server":  {connectTo("good.test:443", proof[len("Proxy-"):]), "refused"},
		"get":                    {"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n" + proof + "\r\n", "refused"},
		"no port":                {connectTo("good.test", proof), "refused"},
		"socks, no method":       {"\x05\x01\x00\x05\x01\x00\x03\x09good.test\x01\xbb", "refused"},
		"socks, a wrong one":     {socksTo("\x06cutout\x01x", "\x03\x09good.test\x01\xbb"), "refused"},
		"socks, bind":            {strings.Replace(socksTo(login, "\x03\x09good.test\x01\xbb"), "\x05\x01\x00\x03", "\x05\x02\x00\x03", 1), "refused"},
		"socks, cut":             {socksTo(login, "\x03\x09good"), "refused"},
		"socks, port 0":          {socksTo(login, "\x03\x09good.test\x00\x00"), "refused"},
	} {
		got, err := ask(tt.text)
		if refused := tt.host == "refused"; refused != (err != nil) || !refused && string(got.Name) != tt.host {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// FuzzAsk: no bytes without the credential are ever taken for a client's.
func FuzzAsk(f *testing.F) {
	f.Add(connectTo("good.test:443", "Proxy-Authorization: Basic eA==\r\n"))
	f.Add(socksTo("\x06cutout\x01x", "\x03\x09good.test\x01\xbb"))
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, password) || strings.Contains(text, basicWord) {
			return
		}
		if got, err := ask(text); err == nil {
			t.Errorf("%q asks for %+v", text, got)
		}
	})
}
