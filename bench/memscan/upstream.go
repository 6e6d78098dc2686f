package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/cutoutdev/cutout/internal/testnet"
)

// host is whose the value is.
const host = "api.example.test"

// newValue is a value that exists nowhere else.
func newValue() string { return rand.Text() + rand.Text() }

// An upstream counts the requests in which the value stands where it should.
// At /echo it answers with the request, and with the values before.
type upstream struct {
	*testnet.Upstream

	mu           sync.Mutex
	value        string
	former       []string
	right, wrong int
}

func newUpstream(ca *testnet.CA, value string) (*upstream, error) {
	cert, err := ca.Cert(host)
	if err != nil {
		return nil, err
	}
	u := &upstream{value: value}
	paths := testnet.Paths()
	u.Upstream, err = testnet.StartUpstream(testnet.UpstreamConfig{Cert: &cert, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		former := u.got(r)
		if r.URL.Path == "/echo" && former != "" {
			w.Header().Set("X-Former", former)
			r.Header.Add("X-Former", former) // for the body
		}
		paths.ServeHTTP(w, r)
	})})
	return u, err
}

// got judges a request and returns the values before.
func (u *upstream) got(r *http.Request) (former string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, pass, _ := r.BasicAuth(); pass == u.value && r.Header.Get("X-Api-Key") == u.value {
		u.right++
	} else {
		u.wrong++
	}
	return strings.Join(u.former, " ")
}

// expect is told that requests have another value from here on.
func (u *upstream) expect(value string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.value, u.former = value, append(u.former, u.value)
}

// check fails unless n requests had the value, and no other came.
func (u *upstream) check(n int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.right != n || u.wrong != 0 {
		return fmt.Errorf("the upstream got the value %d times, want %d, and something else %d times", u.right, n, u.wrong)
	}
	return nil
}

// ask sends the requests of a row.
func ask(client *http.Client, path, placeholder string) error {
	for i := range requests {
		req, err := http.NewRequest("GET", fmt.Sprintf("https://%s/%s?%d", host, path, i), nil)
		if err != nil {
			return err
		}
		req.Header.Set("X-Api-Key", placeholder)
		req.SetBasicAuth("me", placeholder)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: status %d, %w", path, resp.StatusCode, err)
		}
	}
	return nil
}
