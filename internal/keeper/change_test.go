package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source"
	"github.com/cutoutdev/cutout/internal/testnet"
)

func hosts(t *testing.T, patterns ...string) []secret.Host {
	t.Helper()
	var out []secret.Host
	for _, text := range patterns {
		p, err := hostname.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, secret.Host{Pattern: p, Port: 443})
	}
	return out
}

// held is a holder with the secrets A and B, behind a control socket.
func held(t *testing.T) (*holder, *Client, *[]string) {
	t.Helper()
	store, err := secret.NewStore(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	var all []*secret.Secret
	for name, patterns := range map[string][]string{"A": {"*.a.example", "a.example"}, "B": {"b.example"}} {
		v, err := testnet.Value(store, "value-of-"+name+"-000001")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &secret.Secret{Name: name, Placeholder: "$MSB_TEST_" + name, Hosts: hosts(t, patterns...), Value: v})
	}
	set, err := secret.NewSet(all)
	if err != nil {
		t.Fatal(err)
	}
	var log []string
	h := &holder{store: store, life: t.Context(), record: func(what, detail string) error { log = append(log, what+" "+detail); return nil }}
	h.current.Store(set)
	dir := t.TempDir()
	l, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go (&control{secrets: h}).serve(t.Context(), l)
	return h, Dial(dir), &log
}

// passed is a socket on which values wait, as those of the source helper.
func passed(t *testing.T, values ...string) *os.File {
	t.Helper()
	conn, f, err := socketPair("values")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var named []source.Named
	for _, v := range values {
		name, text, _ := strings.Cut(v, "=")
		b, err := source.Hold([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		named = append(named, source.Named{Name: name, Value: source.Value{Data: b}})
	}
	go func() { source.WriteValues(conn, named); conn.Close() }()
	return f
}

func (h *holder) named(name string) *secret.Secret {
	for _, s := range h.current.Load().All() {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func TestChange(t *testing.T) {
	h, c, log := held(t)
	old := h.named("A")
	done, err := c.Change(t.Context(), Change{
		Set: []secret.Secret{
			{Name: "A", Placeholder: "$MSB_OTHER_A", Hosts: hosts(t, "*.a.example", "c.example")},
			{Name: "D", Placeholder: "", Hosts: hosts(t, "d.example")}, // shaped
		},
		Remove: []string{"B"},
	}, passed(t, "A=another-value-of-A-02", "D=value-of-D-000001"))
	if err != nil {
		t.Fatal(err)
	}
	want := "removed B; replaced the value of A for *.a.example,c.example; added D for d.example"
	if strings.Join(done.Done, "; ") != want || len(*log) != 1 || (*log)[0] != "changed: "+want {
		t.Errorf("got %q, on record is %q", done.Done, *log)
	}
	a := h.named("A")
	if a.Placeholder != old.Placeholder || a.Value == old.Value || a.Value.Len() != 21 || a.HasHost("a.example") || !a.HasHost("c.example") {
		t.Errorf("got %+v", a)
	}
	if d := h.named("D"); d.Placeholder == "" || strings.Contains(d.Placeholder, "000001") {
		t.Errorf("got the placeholder %q", d.Placeholder)
	}
	if h.named("B").State != secret.Removed || !h.current.Load().HasHost("a.example") || len(h.current.Load().Searched()) != 4 {
		t.Error("what was is no longer known")
	}
	if got := strings.Join(placeholders(h.current.Load()), " "); strings.Contains(got, "B=") {
		t.Errorf("new commands get %s", got)
	}
	// What was removed can come back, with a value only.
	if _, err := c.Change(t.Context(), Change{Narrow: []Narrowing{{Name: "B", Hosts: hosts(t, "b.example")}}}, nil); err == nil {
		t.Error("a removed secret came back without its value")
	}
	if _, err := c.Change(t.Context(), Change{Set: []secret.Secret{{Name: "B", Hosts: hosts(t, "b.example")}}}, passed(t, "B=value-of-B-000002")); err != nil {
		t.Error(err)
	}
}

// TestWidening: attack E10. Who has no value gets none sent anywhere else.
func TestWidening(t *testing.T) {
	h, c, log := held(t)
	before := h.current.Load()
	anyPort := secret.Host{Pattern: hosts(t, "b.example")[0].Pattern}
	for name, change := range map[string]Change{
		"another host": {Narrow: []Narrowing{{Name: "B", Hosts: hosts(t, "evil.example")}}},
		"a host more":  {Narrow: []Narrowing{{Name: "B", Hosts: hosts(t, "b.example", "evil.example")}}},
		"a wildcard":   {Narrow: []Narrowing{{Name: "B", Hosts: hosts(t, "*.b.example")}}},
		"its apex":     {Narrow: []Narrowing{{Name: "A", Hosts: hosts(t, "example.com")}}},
		"every host":   {Narrow: []Narrowing{{Name: "B", Hosts: []secret.Host{{Pattern: hostname.Any(), Port: 443}}}}},
		"every port":   {Narrow: []Narrowing{{Name: "B", Hosts: []secret.Host{anyPort}}}},
		"another port": {Narrow: []Narrowing{{Name: "B", Hosts: []secret.Host{{Pattern: anyPort.Pattern, Port: 8443}}}}},
		"no host":      {Narrow: []Narrowing{{Name: "B", Hosts: nil}}},
		"twice":        {Narrow: []Narrowing{{Name: "A", Hosts: hosts(t, "a.example")}, {Name: "A", Hosts: hosts(t, "x.a.example")}}},
		"no secret":    {Remove: []string{"C"}},
		"a half":       {Remove: []string{"A"}, Narrow: []Narrowing{{Name: "B", Hosts: hosts(t, "evil.example")}}},
		"no value":     {Set: []secret.Secret{{Name: "B", Hosts: hosts(t, "evil.example")}}},
		"nothing":      {},
		"for ever":     {Remove: []string{"A"}, Drain: 1000 * time.Hour},
		"a held value": {Set: []secret.Secret{{Name: "B", Hosts: hosts(t, "evil.example"), Value: h.named("B").Value}}},
		"a taken name": {Set: []secret.Secret{{Name: "C", Placeholder: "$MSB_TEST_A", Hosts: hosts(t, "c.example")}}, DryRun: true},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if _, err := c.Change(ctx, change, nil); err == nil {
			t.Errorf("%s was accepted", name)
		}
		cancel()
	}
	// A value of the caller's own may go where he likes, and takes the place of
	// the held one.
	held := h.named("B").Value
	for name, values := range map[string]*os.File{
		"a short value":   passed(t, "B=short"),
		"another's value": passed(t, "A=another-value-of-A-02"),
		"no values":       passed(t),
		"too many":        passed(t, "B=another-value-of-B-02", "C=another-value-of-C-02"),
		"a line break":    passed(t, "B=another-value\nof-B-02"),
	} {
		if _, err := c.Change(t.Context(), Change{Set: []secret.Secret{{Name: "B", Hosts: hosts(t, "evil.example")}}}, values); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if h.current.Load() != before || len(*log) != 0 {
		t.Errorf("a refused change has changed something: %q", *log)
	}
	if _, err := c.Change(t.Context(), Change{Set: []secret.Secret{{Name: "B", Hosts: hosts(t, "evil.example")}}}, passed(t, "B=another-value-of-B-02")); err != nil {
		t.Fatal(err)
	}
	if b := h.named("B"); b.Value == held {
		t.Error("the held value goes to further hosts")
	}
	if _, err := c.Change(t.Context(), Change{Narrow: []Narrowing{{Name: "A", Hosts: hosts(t, "x.a.example", "*.y.a.example")}}}, nil); err != nil {
		t.Errorf("narrowing: %v", err)
	}
}

// TestChangeFails: a change that cannot be put on record is none.
func TestChangeFails(t *testing.T) {
	h, c, _ := held(t)
	before := h.current.Load()
	h.record = func(string, string) error { return errors.New("disk is full") }
	if _, err := c.Change(t.Context(), Change{Remove: []string{"A"}}, nil); err == nil || h.current.Load() != before {
		t.Errorf("it was made: %v", err)
	}
	done, err := c.Change(t.Context(), Change{Remove: []string{"A"}, DryRun: true}, nil)
	if err != nil || len(done.Done) != 1 || h.current.Load() != before {
		t.Errorf("a dry run: %v, %v", done, err)
	}
}

// TestManyChanges: former values are searched for until the end. When there is
// no room for another the change is refused, unless one has expired.
func TestManyChanges(t *testing.T) {
	h, c, _ := held(t)
	rotate := func(i int) error {
		value := fmt.Sprintf("B=another-value-of-B-%06d", i)
		_, err := c.Change(t.Context(), Change{Set: []secret.Secret{{Name: "B", Hosts: hosts(t, "b.example")}}}, passed(t, value))
		return err
	}
	for i := range 64 {
		if err := rotate(i); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
	}
	if n := len(h.current.Load().Searched()); n != 66 {
		t.Errorf("%d values are searched for", n)
	}
	before := h.current.Load()
	err := rotate(64)
	if f, ok := errors.AsType[*Failure](err); !ok || !strings.Contains(f.Text, "no room") || f.Hint == "" || h.current.Load() != before {
		t.Errorf("got %v", err)
	}
	gone := before.Former()[7]
	gone.Expires = time.Now().Add(-time.Second)
	if err := rotate(65); err != nil {
		t.Error(err)
	}
	if now := h.current.Load(); len(now.Searched()) != 66 || gone.Value.Same(gone.Value) || !before.Former()[6].Value.Same(before.Former()[6].Value) {
		t.Error("another value than the expired one was given up")
	}
}

// TestStricter: attack E10, for rules. Stricter ones need no value.
func TestStricter(t *testing.T) {
	passthrough := &secret.Violation{Action: secret.Passthrough}
	h, c, log := held(t)
	before := h.current.Load()
	for name, change := range map[string]Change{
		"passthrough":     {Narrow: []Narrowing{{Name: "B", OnViolation: passthrough}}},
		"no record":       {Narrow: []Narrowing{{Name: "B", OnViolation: &secret.Violation{Action: secret.Block}}}},
		"no action":       {Narrow: []Narrowing{{Name: "B", OnViolation: &secret.Violation{Action: 77}}}},
		"not exclusive":   {Share: []string{"B"}},
		"nor by a trick":  {Narrow: []Narrowing{{Name: "B", Exclusive: true}}, Share: []string{"B"}},
		"nothing":         {Narrow: []Narrowing{{Name: "B"}}},
		"half a widening": {Narrow: []Narrowing{{Name: "B", Exclusive: true, OnViolation: passthrough}}},
	} {
		if _, err := c.Change(t.Context(), change, nil); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if h.current.Load() != before || len(*log) != 0 {
		t.Errorf("a refused change has changed something: %q", *log)
	}
	done, err := c.Change(t.Context(), Change{Narrow: []Narrowing{{Name: "B", Exclusive: true, OnViolation: &secret.Violation{Action: secret.BlockAndTerminate}}}}, nil)
	if err != nil || strings.Join(done.Done, "; ") != "made B exclusive; set on-violation of B to block-and-terminate" {
		t.Fatalf("got %q, %v", done.Done, err)
	}
	if b := h.named("B"); !b.Exclusive || b.OnViolation.Action != secret.BlockAndTerminate || b.State != secret.Live {
		t.Errorf("got %+v", b)
	}
	if _, err := c.Change(t.Context(), Change{Narrow: []Narrowing{{Name: "B", OnViolation: &secret.Violation{Action: secret.BlockAndLog}}}}, nil); err == nil {
		t.Error("it was made laxer again")
	}
	if _, err := c.Change(t.Context(), Change{
		Set: []secret.Secret{{Name: "B", Hosts: hosts(t, "b.example"), OnViolation: passthrough}}, Share: []string{"B"},
	}, passed(t, "B=another-value-of-B-02")); err != nil {
		t.Fatal(err)
	}
	if b := h.named("B"); b.Exclusive || b.OnViolation.Action != secret.Passthrough {
		t.Errorf("with its value: %+v", b)
	}
}

// TestExpiry: a value is used until it expires, and not after.
func TestExpiry(t *testing.T) {
	h, _, _ := held(t)
	list := append([]*secret.Secret(nil), h.current.Load().All()...)
	for i, s := range list {
		if s.Name == "A" {
			x := *s
			x.Expires = time.Now().Add(100 * time.Millisecond)
			list[i] = &x
		}
	}
	set, err := secret.NewSet(list)
	if err != nil {
		t.Fatal(err)
	}
	h.current.Store(set)
	h.begin(t.Context(), set, -1)
	if h.named("A").State != secret.Live {
		t.Error("it was withdrawn early")
	}
	for range 100 {
		if h.named("A").State == secret.Withdrawn {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if h.named("A").State != secret.Withdrawn || h.named("B").State != secret.Live {
		t.Errorf("got %v, %v", h.named("A").State, h.named("B").State)
	}
}

// TestLateExpiry: a value is not withdrawn when the clock is only looked at.
func TestLateExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &secret.Secret{Name: "A", Placeholder: "$MSB_TEST_A", Hosts: hosts(t, "a.example"), Expires: time.Now().Add(10 * time.Minute)}
		set, err := secret.NewSet([]*secret.Secret{x})
		if err != nil {
			t.Fatal(err)
		}
		h := &holder{record: func(string, string) error { return nil }}
		h.current.Store(set)
		h.begin(t.Context(), set, -1)
		time.Sleep(10*time.Minute - time.Second)
		synctest.Wait()
		if h.named("A").State != secret.Live {
			t.Error("it was withdrawn early")
		}
		time.Sleep(clockCheck)
		synctest.Wait()
		if h.named("A").State != secret.Withdrawn {
			t.Error("it was not withdrawn")
		}
	})
}

// FuzzChange: no text on the control socket changes a secret's hosts for the
// wider, or makes the keeper say a value.
func FuzzChange(f *testing.F) {
	for _, c := range []Change{{Remove: []string{"A"}, DryRun: true}, {Narrow: []Narrowing{{Name: "B"}}}, {Set: []secret.Secret{{Name: "A"}}}} {
		data, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	p, err := hostname.ParsePattern("a.example")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Change
		if json.Unmarshal(data, &c) != nil {
			return
		}
		c.Set = nil
		old := []*secret.Secret{{Name: "A", Placeholder: "$MSB_TEST_A", Hosts: []secret.Host{{Pattern: p, Port: 443}}}}
		plan, err := planChange(old, c, secret.Violation{})
		if err != nil {
			return
		}
		for _, s := range plan.secrets {
			if s.State == secret.Live && !within(old[0].Hosts, s.Hosts) {
				t.Fatalf("%s widens to %v", data, s.Hosts)
			}
			if v := s.OnViolation; v != nil && (v.Head("b.example") == secret.Passthrough || v.Head("b.example") == secret.Block) {
				t.Fatalf("%s is laxer: %v", data, *v)
			}
		}
	})
}

// TestChangeRequests: what is no change is refused.
func TestChangeRequests(t *testing.T) {
	h, c, _ := held(t)
	before := h.current.Load()
	for _, body := range []string{"", "{}", "[]", `{"remove":["A"]}`, `{"unknown":1}`, `{"remove":` + strings.Repeat("[", 1<<20), strings.Repeat(" ", 2<<20)} {
		req, err := http.NewRequest("POST", "http://keeper/v1/secrets", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			continue // too long to be read
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("%.40q: status %d", body, resp.StatusCode)
		}
	}
	if h.current.Load() != before {
		t.Error("something was changed")
	}
}
