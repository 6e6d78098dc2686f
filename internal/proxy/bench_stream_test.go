package proxy

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkEvent is the time from the writing of a server-sent event to its
// reading, over the boundary and without it, in turn.
func BenchmarkEvent(b *testing.B) {
	const event = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" word"}}]}` + "\n\n"
	for _, protocol := range []string{"h1", "h2"} {
		b.Run(protocol, func(b *testing.B) {
			next := map[string]chan bool{"/direct": make(chan bool), "/cutout": make(chan bool)}
			written := make(chan time.Time, 1)
			w := newWorld(b, protocol, handler(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "text/event-stream")
				rw.(http.Flusher).Flush()
				for range next[r.URL.Path] {
					written <- time.Now()
					io.WriteString(rw, event)
					rw.(http.Flusher).Flush()
				}
			}))
			streams := map[string]*bufio.Reader{
				"/direct": bufio.NewReader(w.stream(w.direct(w.good.Addr().String()), "/direct").Body),
				"/cutout": bufio.NewReader(w.stream(w.client(), "/cutout").Body),
			}
			took := make(map[string][]time.Duration)
			for b.Loop() {
				for path, stream := range streams {
					next[path] <- true
					for range strings.Count(event, "\n") {
						if _, err := stream.ReadSlice('\n'); err != nil {
							b.Fatal(err)
						}
					}
					took[path] = append(took[path], time.Since(<-written))
				}
			}
			direct, cutout := median(took["/direct"]), median(took["/cutout"])
			b.ReportMetric(direct, "direct-µs")
			b.ReportMetric(cutout, "cutout-µs")
			b.ReportMetric(cutout-direct, "added-µs")
			for _, c := range next {
				close(c)
			}
		})
	}
}

func median(d []time.Duration) (microseconds float64) {
	slices.Sort(d)
	return float64(d[len(d)/2]) / float64(time.Microsecond)
}

// BenchmarkDownload is a long answer that is searched, over the boundary and
// without it, where the guest decodes for itself what is coded.
func BenchmarkDownload(b *testing.B) {
	const size = 64 << 20
	for _, protocol := range []string{"h1", "h2"} {
		for _, coding := range []string{"identity", "gzip"} {
			b.Run(protocol+"/"+coding, func(b *testing.B) {
				w := newWorld(b, protocol, handler(long(size, coding)))
				var spent [2]time.Duration
				clients := []*http.Client{w.direct(w.good.Addr().String()), w.client()}
				want := []int{size, size / pageSize * len(scrubbed(page(), coding))}
				b.SetBytes(size)
				for b.Loop() {
					for i, c := range clients {
						began := time.Now()
						resp := w.stream(c, "/")
						if n, err := io.Copy(io.Discard, decoding(resp)); n != int64(want[i]) || err != nil {
							b.Fatal(n, err)
						}
						spent[i] += time.Since(began)
					}
				}
				b.ReportMetric(float64(b.N)*size/1e6/spent[1].Seconds(), "cutout-MB/s")
				b.ReportMetric(spent[0].Seconds()/spent[1].Seconds(), "of-direct")
				b.ReportMetric(0, "MB/s") // of both
			})
		}
	}
}
