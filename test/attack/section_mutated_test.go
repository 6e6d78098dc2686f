package attack

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// Attacks on checks that no other entry would miss; see mutate.
var sectionMutated = []probe{
	{
		entry: "A13", name: "verification is off, the secret insists", run: connect(target{}, "good.test"),
		want: forbidden(policy.UpstreamUnverified),
		change: func(b *boundary) {
			cert := must(b.CA.SelfSigned("good.test"))
			b.GoodIs(b.Serve(testnet.UpstreamConfig{Cert: &cert}))
			b.Config.NoVerify = []hostname.Name{"good.test"}
		},
	},
	{
		entry: "B18", name: "fields of one hop end here", only: "h1", want: substituted,
		run: ask("GET", "/echo", "good.test", "Authorization", bearer, "Proxy-Authorization", "Basic bWluZQ==", "Connection", "X-Mine", "X-Mine", "bWluZQ=="),
		check: func(b *boundary) error {
			if got := b.Received(); strings.Contains(got, "bWluZQ==") {
				return fmt.Errorf("a field of the guest's hop went on: %s", got)
			}
			return nil
		},
	},
	{
		entry: "B18", name: "a credential that is of one hop", only: "h1", want: want{status: []int{200}},
		run: ask("GET", "/echo", "good.test", "Authorization", bearer, "Connection", "Authorization"),
	},
	{
		entry: "B9", name: "101 with another key's accept", only: "h1", want: want{status: []int{502}, reason: policy.UpstreamFailed, value: true},
		run: ask("GET", "/ws", "good.test", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
			"Sec-WebSocket-Key", b64("0123456789abcdef"), "Authorization", bearer),
		change: func(b *boundary) { b.Answer(switches) },
	},
	{
		entry: "C5", name: "a placeholder in a body, surface off", run: post(`{"quoted":"`+P+`"}`, "Content-Type", "application/json"),
		want: want{status: []int{200}, carried: true}, check: carriedOnRecord,
	},
	{
		entry: "C2", name: "gzip is opened, whatever is in it", run: echoed("/"), want: substituted,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				io.WriteString(w, zipped(r.Header.Get("Authorization")))
			})
		},
		check: func(b *boundary) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if !strings.Contains(b.read.String(), P) {
				return fmt.Errorf("the guest reads no placeholder: %q", b.read.String())
			}
			return nil
		},
	},
	{
		entry: "C2", name: "an echo in a coding nobody knows", run: echoed("/"),
		want: want{status: []int{502}, reason: policy.Unscannable, value: true},
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "x-own")
				io.WriteString(w, r.Header.Get("Authorization"))
			})
		},
	},
}

// switches changes the protocol without having read what was asked for.
func switches(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "websocket")
	w.Header().Set("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
	w.WriteHeader(http.StatusSwitchingProtocols)
}
