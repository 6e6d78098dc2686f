package rewrite

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/secret"
)

// corpora are the kinds of text that bodies are made of, 1 MiB each. The near
// misses are every needle without its last byte, one per 64 bytes.
func corpora(needles []string) map[string][]byte {
	rng := rand.New(rand.NewPCG(3, 4))
	fill := func(next func(b *bytes.Buffer)) []byte {
		var b bytes.Buffer
		for b.Len() < 1<<20 {
			next(&b)
		}
		return b.Bytes()[:1<<20]
	}
	i := 0
	return map[string][]byte{
		"json": fill(func(b *bytes.Buffer) {
			fmt.Fprintf(b, `{"id":%d,"name":"item %d","tags":["red","green"],"price":%.2f,"active":true,"note":null},`, rng.IntN(1e6), rng.IntN(100), rng.Float64()*100)
		}),
		"html": fill(func(b *bytes.Buffer) {
			fmt.Fprintf(b, "<tr class=\"row\"><td>%d</td><td><a href=\"/item/%d?ref=list\">Item number %d</a></td></tr>\n", rng.IntN(1e6), rng.IntN(1e6), rng.IntN(1e6))
		}),
		"random": fill(func(b *bytes.Buffer) { b.WriteByte(byte(rng.Uint32())) }),
		"base64": fill(func(b *bytes.Buffer) {
			raw := make([]byte, 57)
			for i := range raw {
				raw[i] = byte(rng.Uint32())
			}
			b.WriteString(base64.StdEncoding.EncodeToString(raw))
		}),
		"nearmiss": fill(func(b *bytes.Buffer) {
			n := needles[i%len(needles)]
			i++
			b.WriteString(n[:len(n)-1])
			b.WriteString(strings.Repeat(" ", max(1, 65-len(n))))
		}),
	}
}

func token(rng *rand.Rand, prefix string, n int) string {
	var b strings.Builder
	b.WriteString(prefix)
	for b.Len() < n {
		b.WriteByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"[rng.IntN(62)])
	}
	return b.String()
}

// perCorpus runs f on each corpus, and says how its speed compares with that
// of bytes.Contains on the same text in the same run.
func perCorpus(b *testing.B, needles []string, f func(b *testing.B, text []byte)) {
	texts := corpora(needles)
	absent := []byte(needles[0][:len(needles[0])-1] + "\x00")
	for _, name := range []string{"json", "html", "random", "base64", "nearmiss"} {
		text := texts[name]
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			f(b, text)
			mine, contains := b.Elapsed()/time.Duration(b.N), time.Hour
			for range 20 {
				began := time.Now()
				bytes.Contains(text, absent)
				contains = min(contains, time.Since(began))
			}
			b.ReportMetric(float64(contains)/float64(mine), "of-Contains")
		})
	}
}

// copyThrough reads r to its end in pieces of 32 KiB.
func copyThrough(b *testing.B, r io.Reader, buf []byte) {
	for {
		if _, err := r.Read(buf); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScrub: 8 secrets in all forms.
func BenchmarkScrub(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	var values []string
	for i, n := range []int{20, 40, 40, 40, 51, 64, 93, 120} {
		values = append(values, token(rng, []string{"", "ghp_", "sk-ant-api03-", "AKIA"}[i%4], n))
	}
	s, list := newScrubber(b, values...)
	needles, _, _ := slowForms(list, values, false)
	buf := make([]byte, 32<<10)
	perCorpus(b, needles, func(b *testing.B, text []byte) {
		for b.Loop() {
			copyThrough(b, s.Reader(bytes.NewReader(text), true, nil), buf)
		}
	})
}

// placeholders are 32 secrets, half of whose placeholders are shaped.
func placeholders(tb testing.TB) ([]*secret.Secret, []string) {
	tb.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	var list []*secret.Secret
	var needles []string
	for i := range 32 {
		p := fmt.Sprintf("$MSB_SERVICE_%02d_TOKEN", i)
		if i%2 == 1 {
			p = token(rng, []string{"ghp_", "sk-ant-api03-", "AKIA", "xoxb-"}[i/2%4], 20+2*i)
		}
		needles = append(needles, p)
		list = append(list, &secret.Secret{Name: fmt.Sprint(i), Placeholder: p})
	}
	return list, needles
}

// BenchmarkFind: 32 placeholders, half of them shaped.
func BenchmarkFind(b *testing.B) {
	list, needles := placeholders(b)
	finder := NewFinder(list)
	buf := make([]byte, 32<<10)
	perCorpus(b, needles, func(b *testing.B, text []byte) {
		for b.Loop() {
			copyThrough(b, finder.Reader(bytes.NewReader(text), func(*secret.Secret) { b.Fatal("found") }), buf)
		}
	})
}

func BenchmarkHead(b *testing.B) {
	finder := NewFinder(secrets(b, "s3cretvalue-0001", "s3cretvalue-0002", "s3cretvalue-0003"))
	h := map[string][]string{
		"Accept": {"application/json"}, "Accept-Encoding": {"gzip, deflate, br"}, "User-Agent": {"python-requests/2.31.0"},
		"Content-Type": {"application/json; charset=utf-8"}, "Authorization": {"Bearer $MSB_KEY_A"}, "X-Request-Id": {"6c1f0c0a-1e5e-4c5f-9a3b-0f1f2d3c4b5a"},
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(finder.Head("POST", "/v1/messages?beta=true", "api.good.test", h)) != 1 {
			b.Fatal("not found")
		}
	}
}
