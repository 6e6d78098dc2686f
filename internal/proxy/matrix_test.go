package proxy

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A cell is one request of [TestMatrix].
type cell struct {
	protocol string // on both sides
	route    route
	place    place
	on       bool // the place is a surface of the secret
	spelling spelling
	coding   string
	framing  string // of a body
}

func (c cell) String() string {
	surface := map[bool]string{true: "on", false: "off"}[c.on]
	return strings.Join([]string{c.protocol, c.route.name, c.place.name, surface, c.spelling.name, c.coding, c.framing}, "/")
}

// secretKey is the same for cells whose secrets are.
func (c cell) secretKey() string {
	return fmt.Sprint(c.place.placeholder(), c.place.surfaces(c.on))
}

// cells are those of one route, in an order that seldom changes the secret.
func cells(protocol string, r route) []cell {
	var all []cell
	for _, p := range places {
		codings, framings := []string{"identity"}, []string{""}
		if p.coded() {
			codings = []string{"identity", "gzip", "deflate", "br", "zstd"}
			framings = []string{"fixed", "streamed"}
		}
		for _, on := range []bool{true, false} {
			for _, s := range p.spellings {
				for _, coding := range codings {
					for _, framing := range framings {
						all = append(all, cell{protocol, r, p, on, s, coding, framing})
					}
				}
			}
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].secretKey() < all[j].secretKey() })
	return all
}

// A trial is a cell with what must become of it.
type trial struct {
	cell
	verdict
	id   string // that the request carries
	want wire   // what the upstream is to record
}

// trials are the cells of a route for which there is a request; void counts
// the others by why there is none.
func trials(protocol string, r route, void map[string]int) []*trial {
	var list []*trial
	for _, x := range cells(protocol, r) {
		if v := oracle(x); v.void != "" {
			void[v.void]++
		} else {
			list = append(list, &trial{cell: x, verdict: v, id: strconv.Itoa(len(list))})
		}
	}
	return list
}

// fewest is how many cells there were when the last was added. A change that
// loses some has lost a test.
const fewest = 17716

// TestMatrix sends a placeholder in every place, spelling and coding, over
// HTTP/1 and HTTP/2, on routes on which all gates hold, each fails, and the
// user has opted out of one. What the guest gets, what the upstream records
// and the event must be what [oracle] says.
func TestMatrix(t *testing.T) {
	n, void := 0, make(map[string]int)
	for _, protocol := range []string{"h1", "h2"} {
		for _, r := range routes {
			n += len(trials(protocol, r, void))
		}
	}
	if t.Logf("%d cells, none where %v", n, void); n < fewest {
		t.Errorf("there were %d", fewest)
	}
	protocols(t, func(t *testing.T, protocol string) {
		for _, r := range routes {
			t.Run(r.name, func(t *testing.T) { r.open(t, protocol).run(t, trials(protocol, r, void)) })
		}
	})
}

func (c *course) run(t *testing.T, list []*trial) {
	if raced { // which takes ten times as long; make unit runs all without
		some := list[:0]
		for i := 0; i < len(list); i += 7 {
			some = append(some, list[i])
		}
		list = some
	}
	for _, x := range list {
		c.try(t, x)
	}
	c.check(t, list)
}

// request is that of the cell with text in its place.
func (c *course) request(x *trial, text string) wire {
	m := wire{method: "GET", target: "/echo", host: c.host, header: http.Header{"X-Cell": {x.id}, "User-Agent": {"matrix"}}}
	switch {
	case c.authority != "":
		m.host = c.authority
	case c.port == 8443:
		m.host += ":8443"
	}
	if x.place.socket {
		maps.Copy(m.header, http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {socketKey},
		})
	}
	x.place.put(&m, text)
	return m
}

// try sends the request of a cell and checks the answer and the event.
func (c *course) try(t *testing.T, x *trial) {
	c.use(x.cell)
	c.mu.Lock()
	c.events = nil
	c.mu.Unlock()
	spelled := x.spelling.spell(x.place.placeholder())
	arrives := spelled
	if x.gets == theValue {
		arrives = written(x.place, spelled, matrixValue)
	}
	m := c.request(x, spelled)
	x.want = c.request(x, arrives)
	if x.coding != "identity" {
		m.code(x.coding)
		if !x.decoded {
			x.want.code(x.coding)
		}
	}
	if x.framing == "fixed" {
		x.want.header["Content-Length"] = []string{strconv.Itoa(len(x.want.body))}
	}
	a := c.send(x, m)
	if a.status != x.status || a.err != nil || x.status >= 400 && !strings.Contains(a.body, `"reason":"`+string(x.reason)+`"`) {
		t.Errorf("%v: answer is %d %q %v, want %d %s", x, a.status, a.body, a.err, x.status, x.reason)
	}
	if holds(a.all, matrixForms) {
		t.Errorf("%v: the guest reads the value: %q", x, a.all)
	}
	c.recorded(t, x)
}

var matrixForms = forms(matrixValue)

func holds(text string, any []string) bool {
	return slices.ContainsFunc(any, func(s string) bool { return strings.Contains(text, s) })
}

// send sends m and reads the answer; of a WebSocket, all that is heard.
func (c *course) send(x *trial, m wire) answer {
	client := c.client
	switch x.place.position {
	case "authority", "trailer":
		// On a connection of its own: in clear the first authority stays its
		// only one, and net/http gives up an HTTP/2 connection on which the
		// trailers of a refused request come late.
		client = c.world.client()
		defer client.CloseIdleConnections()
	}
	scheme := map[bool]string{true: "http", false: "https"}[c.plain]
	r := must(http.NewRequest(m.method, fmt.Sprintf("%s://%s:%d", scheme, c.host, c.port), nil))
	r.URL.Opaque, r.Host, r.Header = m.target, m.host, m.header
	if m.hasBody {
		r.Body, r.Trailer, r.ContentLength = io.NopCloser(strings.NewReader(m.body)), m.trailer, -1
		if x.framing == "fixed" {
			r.ContentLength = int64(len(m.body))
		}
	}
	resp, err := client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return answer{status: 200, all: say(resp.Body.(io.ReadWriter), x.place.opcode(), m.said)}
	}
	text, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, body: string(text), all: string(text), err: err}
}

// recorded checks the events of the cell.
func (c *course) recorded(t *testing.T, x *trial) {
	want := []audit.Event{}
	if x.event != "" {
		e := audit.Event{Event: x.event, Reason: x.reason}
		if x.named {
			e.Secret, e.Surface = "API_KEY", x.place.position
		}
		want = append(want, e)
	}
	var got []audit.Event
	for wait := 0; wait == 0 || wait < 100 && !t.Failed(); wait++ {
		got = []audit.Event{}
		c.mu.Lock()
		for _, e := range c.events {
			if e.Detail == "HTTP/2 PROTOCOL_ERROR" && x.place.position == "trailer" && x.event == audit.Refused {
				continue // net/http's word for trailers that come when their request was refused
			}
			switch e.Event {
			case audit.Substituted, audit.Refused, audit.Carried, audit.Aborted:
				got = append(got, audit.Event{Event: e.Event, Reason: e.Reason, Secret: e.Secret, Surface: e.Surface})
			}
		}
		c.mu.Unlock()
		if reflect.DeepEqual(got, want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%v: events %+v, want %+v", x, got, want)
}

// check compares what the upstream has recorded with what it was to get.
func (c *course) check(t *testing.T, list []*trial) {
	due := 0
	for _, x := range list {
		if x.whole() {
			due++
		}
	}
	got := make(map[string][]testnet.Request)
	for range 500 {
		n := 0
		clear(got)
		for _, r := range c.good.Requests() {
			id := r.Header.Get("X-Cell")
			if got[id] = append(got[id], r); r.BodyErr == "" {
				n++
			}
		}
		if n >= due {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, x := range list {
		c.compare(t, x, got[x.id])
		delete(got, x.id)
	}
	for id := range got {
		t.Errorf("a request of no cell: %q", id)
	}
}

// whole reports whether the upstream gets all of a request.
func (x *trial) whole() bool {
	return x.gets >= inert || x.gets == broken && x.place.position == "websocket"
}

func (c *course) compare(t *testing.T, x *trial, got []testnet.Request) {
	if !x.whole() {
		for _, r := range got {
			if x.gets == nothing || r.BodyErr == "" || holds(r.Text(), slices.Concat(matrixForms, []string{placeholder})) {
				t.Errorf("%v: upstream got %s", x, r.Text())
			}
		}
		return
	}
	if len(got) != 1 {
		t.Errorf("%v: upstream got %d requests", x, len(got))
		return
	}
	r := got[0]
	same := func(what string, got, want any) {
		t.Helper()
		if a, b := fmt.Sprintf("%q", got), fmt.Sprintf("%q", want); a != b {
			t.Errorf("%v: upstream got %s %s, want %s", x, what, a, b)
		}
	}
	same("method", r.Method, x.want.method)
	same("target", r.Target, x.want.target)
	same("host", r.Host, x.want.host)
	same("header", r.Header, x.want.header)
	same("body", string(r.Body), x.want.body)
	same("error", r.BodyErr, "")
	same("trailer", r.Trailer, x.want.trailer)
	if x.place.socket {
		heard, _ := c.heard.Load(x.id)
		same("messages", heard, x.hears())
	}
}

// hears is what the upstream hears in the WebSocket.
func (x *trial) hears() []string {
	if x.gets == broken {
		return []string{"8:\x03\xf0"} // RFC 6455 §7.4.1: against a policy
	}
	return []string{fmt.Sprintf("%d:%s", x.place.opcode(), x.want.said), "8:\x03\xe8"}
}
