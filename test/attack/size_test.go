package attack

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// D8: bodies of any length go out exact, or are refused, or end so that the
// upstream can tell.
var sectionSize = []probe{
	{entry: "D8", name: "16 MiB - 1 of fixed length", change: spooled, run: uploaded(16<<20-1, true), want: wantStatus(200), check: exactly(16<<20 - 1), budget: 64 << 20},
	{entry: "D8", name: "16 MiB + 1 of fixed length", change: spooled, run: uploaded(16<<20+1, true), want: wantStatus(200), check: exactly(16<<20 + 1), budget: 48 << 20},
	{entry: "D8", name: size(longBody) + " of fixed length", change: spooled, run: uploaded(longBody, true), want: wantStatus(200), check: exactly(longBody), budget: 48 << 20},
	{entry: "D8", name: size(longBody) + " of unknown length", change: inBodies, run: uploaded(longBody, false), want: wantStatus(200), check: exactly(longBody), budget: 24 << 20},
	{
		entry: "D8", name: "16 MiB + 1 with nowhere to wait", change: nowhereToWait, run: uploaded(16<<20+1, true), check: nothingSent,
		want: want{status: []int{413}, reason: policy.BodyTooLarge},
	},
	{
		entry: "D8", name: "a refusal found after " + size(lateRefusal), want: want{status: []int{0, 403}, reason: policy.HostNotAllowed}, check: nothingWhole, budget: 24 << 20,
		change: func(b *boundary) {
			all(b)
			b.Config.OnViolation = secret.Violation{Action: secret.Block}
		},
		run: func(b *boundary) outcome { return b.upload("evil.test", lateRefusal, false) },
	},
}

const filler = "0123456789abcdef"

var (
	longBody    = int64(sized(48<<20, 5<<30))
	lateRefusal = int64(sized(48<<20, 2<<30))
)

func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func spooled(b *boundary) {
	inBodies(b)
	b.Config.SpoolDir = b.T.TempDir()
}

func nowhereToWait(b *boundary) {
	b.InProcess("a keeper always has a directory for bodies")
	inBodies(b)
}

// text is n bytes that end with end.
func text(n int64, end string) io.Reader {
	return io.MultiReader(io.LimitReader(endless{}, n-int64(len(end))), strings.NewReader(end))
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = filler[i%len(filler)]
	}
	n := max(len(p)/len(filler)*len(filler), min(len(p), 1)) // each read begins anew
	return n, nil
}

// uploaded is a probe of n bytes to good.test that end with a placeholder.
func uploaded(n int64, fixed bool) func(*boundary) outcome {
	return func(b *boundary) outcome { return b.upload("good.test", n, fixed) }
}

func (b *boundary) upload(name string, n int64, fixed bool) outcome {
	c, err := b.Secure(target{Name: name})
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Minute))
	r := must(http.NewRequest("POST", "https://"+name+"/upload", text(n, P)))
	r.ContentLength = -1
	if fixed {
		r.ContentLength = n
	}
	r.Header.Set("Content-Type", "text/plain")
	resp, err := b.roundTrip(c, r)
	if err != nil {
		return outcome{err: err}
	}
	answer, err := io.ReadAll(resp.Body)
	return b.got(outcome{resp.StatusCode, string(answer), err})
}

// exactly checks that the upstream got what was sent, with the value at its
// end.
func exactly(n int64) func(*boundary) error {
	return func(b *boundary) error {
		sum := sha256.New()
		io.Copy(sum, text(n-int64(len(P))+int64(len(V)), V))
		if r := first(b); r.BodyErr != "" || r.BodySize != n-int64(len(P))+int64(len(V)) || r.BodySHA256 != hex.EncodeToString(sum.Sum(nil)) {
			return fmt.Errorf("the upstream got %d bytes, not what was sent: %s", r.BodySize, r.BodyErr)
		}
		return nil
	}
}
