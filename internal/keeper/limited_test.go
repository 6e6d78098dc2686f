package keeper

import (
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/hostname"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// TestLimited: that certificates made room for others is on record.
func TestLimited(t *testing.T) {
	var told atomic.Int32
	log, err := audit.Create(filepath.Join(t.TempDir(), auditName), audit.Config{Notify: func(e audit.Event) {
		if e.Event == audit.Limited && e.Reason == policy.LimitReached {
			told.Add(1)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	store, err := secret.NewStore(0)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	set, err := secret.NewSet(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBoundary(boundaryConfig{
		spec: Spec{TLS: TLS{Intercept: "all"}}, set: func() *secret.Set { return set }, store: store, log: log, forward: l,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	for i := range 1026 {
		if _, err := b.ca.Leaf(hostname.Name(fmt.Sprintf("n%d.test", i))); err != nil {
			t.Fatal(err)
		}
	}
	log.Close() // what was held together is told
	if told.Load() == 0 {
		t.Error("nothing was told")
	}
}
