package attack

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/cutoutdev/cutout/internal/netstack"
	"github.com/cutoutdev/cutout/internal/netstack/netstacktest"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// B14, B15, C13: too much of something. Each ends within bounds, and
// another connection of the guest's works as before.
var sectionFlood = join(floods(), []probe{
	{entry: "B15", name: fmt.Sprintf("%d downloads that nobody reads", manyBodies), run: besides(unread), want: substituted, budget: 192 << 20},
	{entry: "B15", name: fmt.Sprintf("%d uploads of 1 GiB that nobody reads", manyBodies), run: besides(uploads), change: silentUpload, want: substituted, budget: 192 << 20},
	{entry: "B15", name: fmt.Sprintf("%d heads that never end", manySlow), run: besides(slowHeads), want: substituted, budget: 32 << 20},
	{entry: "B15", name: fmt.Sprintf("%d bodies that never end", manySlow), run: besides(slowBodies), want: substituted, budget: uint64(manySlow) * 768 << 10},
	{entry: "B15", name: "800 bodies that never end, on 8 connections", run: besides(slowStreams), only: "h2", want: substituted, budget: 320 << 20, check: limitOnRecord},
	{entry: "B15", name: fmt.Sprintf("%d refusals", manyRefusals), run: besides(refusals), want: substituted, budget: 16 << 20, only: "h1"},
	{entry: "B15", name: fmt.Sprintf("%d idle connections over TLS", manyIdle), run: besides(idle), want: substituted, budget: uint64(manyIdle) * 192 << 10},
	{
		entry: "B15", name: fmt.Sprintf("%d connections", manyConns), run: crowd, only: "h1", change: quietPort,
		want: substituted, check: limitOnRecord, budget: 288 << 20, // the guest's ends are in this process too
	},
	{entry: "B15", name: fmt.Sprintf("%d half-open connections", manySYNs), run: elsewhere(halfOpen), only: "h1", want: want{status: []int{200}}, budget: 64 << 20},
	{entry: "B15", name: fmt.Sprintf("a scan of %d ports", manyPorts), run: besides(scan), only: "h1", want: substituted, budget: 64 << 20},
	{
		entry: "C13", name: "a gzip bomb", run: drained("/"), want: want{status: []int{0, 200, 502}, value: true}, budget: 64 << 20,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				io.CopyN(z, zeroes{}, 64<<20)
				io.WriteString(z, r.Header.Get("Authorization"))
				z.Close()
			})
		},
	},
	{
		entry: "C13", name: "10^5 near misses", run: echoed("/"), want: substituted, budget: 64 << 20,
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				for range 100 {
					io.WriteString(w, strings.Repeat(V[:len(V)-1]+"_", 1000))
				}
				io.WriteString(w, r.Header.Get("Authorization"))
			})
		},
	},
	{
		entry: "C13", name: "endless headers", run: echoed("/"), want: want{status: []int{0, 502}, value: true},
		change: func(b *boundary) {
			b.Answer(func(w http.ResponseWriter, r *http.Request) {
				for i := range 2000 {
					w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
				}
			})
		},
	},
})

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

var manyStreams = sized(10_000, 100_000)

// besides runs an attack, leaves it as it is, and then makes an honest
// request on another connection.
func besides(attack func(*boundary) error) func(*boundary) outcome {
	return func(b *boundary) outcome {
		if err := attack(b); err != nil {
			return outcome{err: err}
		}
		return connect(target{}, "good.test")(b)
	}
}

// floods are B14: each is written until the boundary ends the connection, or
// all of it was taken.
func floods() []probe {
	get := []string{":method", "GET", ":scheme", "https", ":path", "/ok", ":authority", "good.test"}
	var out []probe
	for _, x := range []struct {
		name  string
		write func(*frames) error // an error is only of what must not work
	}{
		{"rapid reset", func(f *frames) error {
			for i := range uint32(20_000) {
				if err := errors.Join(f.Head(2*i+1, true, get...), f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)); err != nil {
					return nil
				}
			}
			return nil
		}},
		{"CONTINUATION without end", func(f *frames) error {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.Block(get...), EndStream: true})
			field := "\x00\x08x-filler\x7f\xe9\x06" + strings.Repeat("x", 1000) // not indexed
			for range 20_000 {
				if err := f.WriteContinuation(1, false, []byte(field)); err != nil {
					return nil
				}
			}
			return errors.New("20 MB of one head were taken")
		}},
		{"a bomb of indexed fields", func(f *frames) error {
			block := append([]byte(nil), f.Block(append(get, "x-bomb", strings.Repeat("x", 3000))...)...)
			indexed := block[len(block):]
			for range 16_000 {
				indexed = append(indexed, 0xbe) // the newest entry of the dynamic table
			}
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true})
			f.WriteContinuation(1, true, indexed)
			return nil
		}},
		{"PING", func(f *frames) error {
			for range 100_000 {
				if err := f.WritePing(false, [8]byte{}); err != nil {
					return nil
				}
			}
			return nil
		}},
		{"SETTINGS", func(f *frames) error {
			for range 100_000 {
				if err := f.WriteSettings(); err != nil {
					return nil
				}
			}
			return nil
		}},
		{fmt.Sprintf("%d streams at once", manyStreams), func(f *frames) error {
			for i := range uint32(manyStreams) {
				if err := f.Head(2*i+1, false, get...); err != nil { // none of them ends
					return nil
				}
			}
			return nil
		}},
		{"a head of 4 MB", func(f *frames) error {
			fields := slices.Clone(get)
			for i := range 4000 { // no two alike, or HPACK would make little of it
				fields = append(fields, "x-filler", fmt.Sprintf("%d%s", i, strings.Repeat("~", 1000)))
			}
			block := f.Block(fields...)
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16<<10], EndStream: true})
			for block = block[16<<10:]; len(block) > 0; block = block[min(len(block), 16<<10):] {
				if err := f.WriteContinuation(1, len(block) <= 16<<10, block[:min(len(block), 16<<10)]); err != nil {
					return nil
				}
			}
			if status, _, _ := f.Answer(1); status != 0 && status != http.StatusRequestHeaderFieldsTooLarge {
				return fmt.Errorf("a head of 4 MB was answered %d", status)
			}
			return nil
		}},
		{"empty DATA", func(f *frames) error {
			f.Head(1, false, ":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test")
			for range 100_000 {
				if err := f.WriteData(1, false, nil); err != nil {
					return nil
				}
			}
			return nil
		}},
		{"WINDOW_UPDATE and PRIORITY", func(f *frames) error {
			for i := range uint32(50_000) {
				if err := errors.Join(f.WriteWindowUpdate(0, 1), f.WritePriority(2*i+1, http2.PriorityParam{StreamDep: 2*i + 3})); err != nil {
					return nil
				}
			}
			return nil
		}},
		{"a thousand streams with no window", func(f *frames) error {
			f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			for i := range uint32(1000) {
				if err := f.Head(2*i+1, true, ":method", "GET", ":scheme", "https", ":path", "/bytes?n=1000000", ":authority", "good.test"); err != nil {
					return nil
				}
			}
			return nil
		}},
	} {
		out = append(out, probe{
			entry: "B14", name: x.name, only: "h2", want: substituted, budget: 128 << 20,
			run: besides(func(b *boundary) error {
				c, err := b.Secure(target{})
				if err != nil {
					return err
				}
				b.T.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(5 * time.Second)) // for what neither ends nor goes on
				return x.write(b.frames(c))
			}),
		})
	}
	return out
}

var (
	manyBodies   = sized(30, 1000)
	manySlow     = sized(60, 1000)
	manyRefusals = sized(1000, 100_000)
	manyIdle     = sized(150, 2000)
	manyConns    = sized(2300, 10_000)
	manySYNs     = sized(3000, 100_000)
	manyPorts    = sized(1000, 65_535)
)

// each opens n connections, which stay open until the probe ends, and writes
// to each.
func each(b *boundary, n int, write func(i int, c *tls.Conn) error) error {
	for i := range n {
		c, err := b.Secure(target{})
		if err != nil {
			return err
		}
		b.T.Cleanup(func() { c.Close() })
		if err := write(i, c); err != nil {
			return err
		}
	}
	return nil
}

// unread begins downloads and reads nothing.
func unread(b *boundary) error {
	return each(b, manyBodies, func(_ int, c *tls.Conn) error {
		if b.Protocol == "h1" {
			_, err := io.WriteString(c, "GET /bytes?n=100000000 HTTP/1.1\r\nHost: good.test\r\n\r\n")
			return err
		}
		f := b.frames(c)
		f.WriteWindowUpdate(0, 1<<30)
		for id := uint32(1); id < 20; id += 2 {
			f.Head(id, true, ":method", "GET", ":scheme", "https", ":path", "/bytes?n=100000000", ":authority", "good.test")
		}
		return nil
	})
}

// silentUpload makes good.test read no bodies of /upload.
func silentUpload(b *boundary) {
	done := make(chan struct{})
	b.Answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/upload" {
			select {
			case <-done:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		}
		testnet.Paths().ServeHTTP(w, r)
	})
	b.T.Cleanup(func() { close(done) }) // before the server is closed
}

// uploads sends as much of long bodies as is taken.
func uploads(b *boundary) error {
	chunk := make([]byte, 16<<10)
	return each(b, manyBodies, func(_ int, c *tls.Conn) error {
		write := func() error { _, err := c.Write(chunk); return err }
		if b.Protocol == "h1" {
			io.WriteString(c, "POST /upload HTTP/1.1\r\nHost: good.test\r\nContent-Length: 1073741824\r\n\r\n")
		} else {
			f := b.frames(c)
			f.Head(1, false, ":method", "POST", ":scheme", "https", ":path", "/upload", ":authority", "good.test", "content-length", "1073741824")
			write = func() error { return f.WriteData(1, false, chunk) } // past every window
		}
		go func() {
			for write() == nil {
			}
		}()
		return nil
	})
}

// slowHeads begins heads and goes away from the keyboard.
func slowHeads(b *boundary) error {
	return each(b, manySlow, func(_ int, c *tls.Conn) error {
		if b.Protocol == "h1" {
			_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: good")
			return err
		}
		f := b.frames(c)
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.Block(":method", "GET")})
	})
}

// slowBodies begins bodies and goes away.
func slowBodies(b *boundary) error {
	return each(b, manySlow, func(_ int, c *tls.Conn) error {
		if b.Protocol == "h1" {
			_, err := io.WriteString(c, postGood+"Content-Length: 1000000\r\n\r\nx")
			return err
		}
		f := b.frames(c)
		return errors.Join(f.Head(1, false, ":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test"), f.WriteData(1, false, []byte("x")))
	})
}

// slowStreams begins as many bodies as a connection takes.
func slowStreams(b *boundary) error {
	for range 8 {
		c, err := b.Secure(target{})
		if err != nil {
			return err
		}
		b.T.Cleanup(func() { c.Close() })
		f := b.frames(c)
		for id := uint32(1); id < 200; id += 2 {
			f.Head(id, false, ":method", "POST", ":scheme", "https", ":path", "/echo", ":authority", "good.test")
			f.WriteData(id, false, []byte("x"))
		}
	}
	time.Sleep(time.Second) // until all of them have begun
	return nil
}

func idle(b *boundary) error {
	return each(b, manyIdle, func(int, *tls.Conn) error { return nil })
}

// quietPort lets a server of evil.test's listen that says nothing.
func quietPort(b *boundary) {
	raw := must(testnet.StartRaw(testnet.RawConfig{}))
	b.T.Cleanup(func() { raw.Close() })
	b.Routes.Set(netip.AddrPortFrom(evilAddr, 9000), raw.Addr())
}

// crowd opens more connections than a sandbox may have. Those over the bound
// are refused; when the others have ended, the guest is served as before.
func crowd(b *boundary) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	refused := 0
	for range manyConns {
		c, err := b.guest().Dial(ctx, "tcp", netip.AddrPortFrom(evilAddr, 9000))
		if err != nil {
			refused++
			continue
		}
		open = append(open, c)
	}
	if refused == 0 || len(open) < 1000 {
		return outcome{err: fmt.Errorf("%d connections are open, %d were refused", len(open), refused)}
	}
	for _, c := range open {
		c.Close()
	}
	open = nil
	var o outcome
	for range 100 { // they end in their own time
		if o = connect(target{}, "good.test")(b); o.status == 200 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return o
}

func limitOnRecord(b *boundary) error {
	if !b.Recorded(policy.LimitReached) {
		return errors.New("no event says that a limit was reached")
	}
	return nil
}

// elsewhere runs an attack and makes an honest request in another sandbox.
func elsewhere(attack func(*boundary) error) func(*boundary) outcome {
	return func(b *boundary) outcome {
		other := start(b.T.(*testing.T), b.Protocol, nil)
		if err := attack(b); err != nil {
			return outcome{err: err}
		}
		o := connect(target{}, "good.test")(other)
		if !strings.Contains(other.Received(), V) {
			o.err = errors.Join(o.err, errNotArrived)
			o.status = -1
		}
		return o
	}
}

// halfOpen sends SYNs and never answers what comes.
func halfOpen(b *boundary) error {
	for i := range manySYNs {
		src := netip.AddrPortFrom(b.lan().own4, uint16(1024+i%60_000))
		b.guest().SendFrame(b.guest().Ethernet(netstacktest.TCP(src, netip.AddrPortFrom(strayAddr, 443), uint32(i), 0, 2)))
	}
	for range 100 {
		if n := b.Dropped(netstack.TooManyPending); n > 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("none was dropped")
}

// scan asks for every port of a host.
func scan(b *boundary) error {
	for i := range manyPorts {
		src := netip.AddrPortFrom(b.lan().own4, uint16(1024+i%60_000))
		b.guest().SendFrame(b.guest().Ethernet(netstacktest.TCP(src, netip.AddrPortFrom(evilAddr, uint16(1+i)), uint32(i), 0, 2)))
	}
	return nil
}

func refusals(b *boundary) error {
	c, err := b.Secure(target{})
	if err != nil {
		return err
	}
	defer c.Close()
	for i, o := range b.raw(c, strings.Repeat(getGood+"Title: "+P+"\r\n\r\n", manyRefusals), manyRefusals) {
		if o.reason() != policy.SurfaceOff {
			return fmt.Errorf("refusal %d: %d %v", i, o.status, o.err)
		}
	}
	return nil
}
