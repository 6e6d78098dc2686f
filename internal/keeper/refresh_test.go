package keeper

import (
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source"
	"github.com/cutoutdev/cutout/internal/testnet"
)

// A fakeHelper is the other end of a refresher.
type fakeHelper struct {
	t    *testing.T
	conn net.Conn
}

// wanted waits for the next question.
func (f fakeHelper) wanted() string {
	f.t.Helper()
	f.conn.SetReadDeadline(time.Now().Add(time.Minute))
	var w source.Wanted
	if err := source.ReadMessage(f.conn, &w, source.MaxHeader); err != nil {
		f.t.Fatal(err)
	}
	return w.Name
}

func (f fakeHelper) give(name, value string, expires time.Time) {
	f.t.Helper()
	b, err := source.Hold([]byte(value))
	if err != nil {
		f.t.Fatal(err)
	}
	defer b.Close()
	source.WriteFresh(f.conn, source.Named{Name: name, Value: source.Value{Data: b, Expires: expires}}) // or the keeper has hung up
}

func (f fakeHelper) fail(name, why string) {
	source.WriteMessage(f.conn, source.Fresh{Announced: source.Announced{Name: name}, Failed: why}, source.MaxHeader)
}

// following is a holder whose secret A expires and has a helper, and what it
// records and tells.
func following(t *testing.T, expires time.Time) (*holder, fakeHelper, func() string) {
	t.Helper()
	h, _, _ := held(t)
	var mu sync.Mutex
	var log []string
	h.record = func(what, detail string) error {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, what+" "+detail)
		return nil
	}
	h.notice = func(text string) { h.record("told:", text) }
	for _, s := range h.current.Load().All() {
		if s.Name == "A" {
			s.Expires = expires
		}
	}
	conn, end, err := socketPair("values")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fd, err := unix.Dup(int(end.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	end.Close()
	h.begin(t.Context(), h.current.Load(), fd)
	return h, fakeHelper{t, conn}, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(log, "\n")
	}
}

// eventually waits for what must come.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what + ": never")
		}
	}
}

// TestRefresh: values are asked for before they expire, and the newer take the
// place of the older.
func TestRefresh(t *testing.T) {
	t.Parallel()
	h, helper, log := following(t, time.Now().Add(1500*time.Millisecond))
	first := *h.named("A")
	if got := helper.wanted(); got != "A" || time.Now().After(first.Expires) {
		t.Errorf("%q was wanted, late or not", got)
	}
	if h.named("A").State != secret.Live {
		t.Error("it was withdrawn early")
	}
	later := time.Now().Add(time.Hour).Round(0)
	helper.give("A", "another-value-of-A-02", later)
	eventually(t, "a newer value", func() bool { return h.named("A").Value != first.Value })
	a := h.named("A")
	if a.Value.Len() != 21 || !a.Expires.Equal(later) || a.Placeholder != first.Placeholder || len(a.Hosts) != 2 {
		t.Errorf("got %+v", a)
	}
	if all := h.current.Load().Searched(); len(all) != 3 {
		t.Errorf("%d values are searched for", len(all))
	}
	eventually(t, "a record", func() bool { return strings.HasPrefix(log(), "refreshed: A, which is good until ") })
	time.Sleep(time.Until(first.Expires) + 100*time.Millisecond)
	if h.named("A") != a {
		t.Error("the end of the older value has ended the newer")
	}
}

// TestRefreshFails: what cannot be refreshed is used until it expires, then
// withdrawn, and comes back when its source does.
func TestRefreshFails(t *testing.T) {
	t.Parallel()
	expires := time.Now().Add(time.Second)
	h, helper, log := following(t, expires)
	value := h.named("A").Value
	for i, answer := range []func(){
		func() { helper.fail("A", "the command failed: exit status 3") },
		func() { helper.give("A", "another-value-of-A-02", expires) },
		func() { helper.give("A", "short", expires.Add(time.Hour)) },
	} {
		helper.wanted()
		if now := h.named("A"); now.Value != value || time.Now().Before(expires) && now.State != secret.Live {
			t.Errorf("after %d failures: %+v", i, now)
		}
		answer()
	}
	eventually(t, "withdrawal", func() bool { return h.named("A").State == secret.Withdrawn })
	helper.wanted()
	helper.give("A", "another\nline", expires.Add(time.Hour))
	eventually(t, "a record", func() bool { return strings.Contains(log(), "not refreshed: A: value holds a CR") })
	h.refreshers["A"].mu.Lock()
	due := h.refreshers["A"].next["A"].due
	h.refreshers["A"].next["A"].due = time.Now() // not as long as it would be
	h.refreshers["A"].mu.Unlock()
	if d := time.Until(due); d < 4*time.Second || d > 8*time.Second {
		t.Errorf("after four failures it waits for %v", d)
	}
	for _, want := range []string{"not refreshed: A: the command failed: exit status 3; its value is used until ", "expires no later", "shorter than 8 bytes", "withdrawn: A has expired"} {
		if !strings.Contains(log(), want) {
			t.Errorf("not on record: %s", want)
		}
	}
	if got := log(); strings.Contains(got, "another") || strings.Count(got, "told:") != 1 {
		t.Errorf("got %s", got)
	}
}

// TestRefreshComesBack: a source that works again ends the withdrawal.
func TestRefreshComesBack(t *testing.T) {
	t.Parallel()
	h, helper, _ := following(t, time.Now().Add(200*time.Millisecond))
	eventually(t, "withdrawal", func() bool { return h.named("A").State == secret.Withdrawn })
	helper.wanted()
	helper.give("A", "value-of-A-000001", time.Now().Add(time.Hour)) // the same for longer
	eventually(t, "the value", func() bool { return h.named("A").State == secret.Live })
	if n := len(h.current.Load().Searched()); n != 2 {
		t.Errorf("%d values are searched for", n)
	}
}

// TestHelperEnds: without its helper a value is used until it expires.
func TestHelperEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(fakeHelper){
		"killed":         func(f fakeHelper) { f.conn.Close() },
		"speaks unasked": func(f fakeHelper) { f.fail("A", "hello") },
	} {
		t.Run(name, func(t *testing.T) {
			h, helper, log := following(t, time.Now().Add(2*time.Second))
			end(helper)
			eventually(t, "a record", func() bool {
				return strings.Contains(log(), "not refreshed: A: the source helper has ended; its value is used until ")
			})
			if a := h.named("A"); a.State != secret.Live && time.Now().Before(a.Expires) {
				t.Errorf("got %+v", a)
			}
			eventually(t, "withdrawal", func() bool { return h.named("A").State == secret.Withdrawn })
		})
	}
}

// TestOthersValue: a helper that is asked for one value cannot set another, nor
// one that a change has taken from it.
func TestOthersValue(t *testing.T) {
	t.Parallel()
	h, helper, _ := following(t, time.Now().Add(500*time.Millisecond))
	b := h.named("B").Value
	helper.wanted()
	helper.give("B", "value-of-somebody-else", time.Now().Add(time.Hour))
	eventually(t, "the end", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.refreshers["A"] == nil })
	if h.named("B").Value != b {
		t.Error("it has set another's value")
	}

	h, helper, _ = following(t, time.Now().Add(500*time.Millisecond))
	helper.wanted()
	r := h.refreshers["A"]
	if _, err := h.change(t.Context(), Change{Remove: []string{"A"}}, nil); err != nil {
		t.Fatal(err)
	}
	v, err := testnet.Value(h.store, "another-value-of-A-02")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.refreshed(r, "A", v, time.Now().Add(time.Hour)); err != nil || h.named("A").State != secret.Removed || h.named("A").Value == v {
		t.Errorf("a removed secret came back: %v", err)
	}
	if h.store.Release(v); v.Same(v) {
		t.Error("the value was kept")
	}
	helper.conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := helper.conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("a helper that is of no use any more is kept: %v", err)
	}
}

// TestChangeFollows: a value that a change brings is refreshed by the helper
// that brought it, not by the one before.
func TestChangeFollows(t *testing.T) {
	h, before, _ := following(t, time.Now().Add(time.Hour))
	conn, end, err := socketPair("values")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer end.Close()
	b, err := source.Hold([]byte("another-value-of-A-02"))
	if err != nil {
		t.Fatal(err)
	}
	source.WriteValues(conn, []source.Named{{Name: "A", Value: source.Value{Data: b, Expires: time.Now().Add(time.Second)}}})
	dir := t.TempDir()
	l, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go (&control{secrets: h}).serve(t.Context(), l)
	if _, err := Dial(dir).Change(t.Context(), Change{Set: []secret.Secret{{Name: "A", Hosts: hosts(t, "a.example")}}}, end); err != nil {
		t.Fatal(err)
	}
	end.Close()
	before.conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := before.conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the helper of before is kept: %v", err)
	}
	after := fakeHelper{t, conn}
	if got := after.wanted(); got != "A" {
		t.Errorf("it is asked for %q", got)
	}
	after.give("A", "yet-another-value-of-A-03", time.Now().Add(time.Hour))
	eventually(t, "a newer value", func() bool { return h.named("A").Value.Len() == 25 })
}
