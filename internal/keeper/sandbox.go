package keeper

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/guest"
	"github.com/cutoutdev/cutout/internal/ingress"
	"github.com/cutoutdev/cutout/internal/metrics"
	"github.com/cutoutdev/cutout/internal/netstack/frame"
	"github.com/cutoutdev/cutout/internal/otlp"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/vm/qemu"
)

// A sandbox is what a keeper keeps.
type sandbox struct {
	spec   Spec
	store  *secret.Store
	logins map[string]secret.Value
	values int // the socket that they came over, whose other end may have newer ones; -1 = none
	tell   *teller
	end    context.CancelCauseFunc

	secrets  *holder
	log      *audit.Log
	events   fanout
	counters metrics.Counters
	otlp     *otlp.Exporter // nil = events are not exported
	begun    time.Time
	boundary *boundary
	ingress  *ingress.Server
	machine  *qemu.Machine
	restored bool // it began with a snapshot
	guest    *guest.Client
	control  net.Listener
	files    []*os.File // the machine's ends; open as long as it may be restarted
}

// Names of what stands in the sandbox's state directory.
const (
	auditName   = "audit.jsonl"
	consoleName = "console.log"
)

// start brings everything up in the order in which it depends on the other:
// the log before the boundary, the boundary before the guest, the guest
// before the socket.
func (s *sandbox) start(ctx context.Context, secrets []*secret.Secret) (err error) {
	if err := shapePlaceholders(s.store, secrets); err != nil {
		return err
	}
	set, err := secret.NewSet(secrets)
	if err != nil {
		return err
	}
	s.begun = time.Now()
	told, err := s.export()
	if err != nil {
		return err
	}
	s.log, err = audit.Create(filepath.Join(s.spec.Dirs.State, auditName), audit.Config{Notify: told, Observe: s.counters.Observe, BestEffort: s.spec.AuditBestEffort})
	if err != nil {
		return err
	}
	for _, w := range s.spec.Warnings() {
		s.record("weakened:", w)
	}
	if e := s.spec.Net.Egress; e != nil {
		s.record("upstream proxy:", e.URL())
	}
	if err := s.record("starting", s.spec.ID); err != nil { // or the first use of a value would find out
		return err
	}
	s.secrets = &holder{spec: s.spec, store: s.store, record: s.record, notice: s.tell.notice}
	s.secrets.current.Store(set)
	if s.ingress, err = ingress.Listen(s.spec.Net.Published); err != nil {
		return err
	}
	if s.spec.Link != "" {
		return s.startLinked(ctx, set)
	}
	var link frame.Link
	var nic *os.File
	if !s.spec.Net.Off() {
		var conn net.Conn
		if conn, nic, err = socketPair("nic"); err != nil {
			return err
		}
		link = frame.NewStream(conn)
		s.files = append(s.files, nic)
	}
	if s.boundary, err = newBoundary(s.boundaryConfig(link)); err != nil {
		return err
	}
	if err := s.boot(ctx, nic); err != nil {
		return err
	}
	how := s.machine.Accel().String()
	if s.restored {
		how += ", from a snapshot"
	}
	s.record("started", how)
	s.publish()
	return s.serve(ctx)
}

func (s *sandbox) boundaryConfig(link frame.Link) boundaryConfig {
	return boundaryConfig{
		spec: s.spec, set: s.secrets.current.Load, store: s.store, login: s.logins[LoginName], log: s.log, link: link,
		terminate: func(r policy.Reason) {
			s.end(fmt.Errorf("a secret's placeholder was used against the rules: %s", r.What()))
		},
	}
}

// serve opens the control socket.
func (s *sandbox) serve(ctx context.Context) (err error) {
	s.control, err = listen(s.spec.Dirs.Runtime)
	if err != nil {
		return err
	}
	s.secrets.proxy = s.boundary.proxy
	s.secrets.begin(ctx, s.secrets.current.Load(), s.values)
	c := &control{
		guest: s.guest, events: &s.events, secrets: s.secrets,
		env: func() []string { return mergeEnv(s.spec.Guest.Env, placeholders(s.secrets.current.Load())) },
		info: func() Info {
			i := Info{ID: s.spec.ID, Restored: s.restored, Secrets: s.secrets.names(), PIDs: []int{os.Getpid()}, Audit: s.log.Head(), Goroutines: runtime.NumGoroutine()}
			if s.machine != nil {
				i.Accel, i.PIDs = s.machine.Accel().String(), append(i.PIDs, s.machine.Pid())
			}
			return i
		},
		net: func() NetState {
			n := s.boundary.netState()
			if s.ingress != nil {
				n.Published = s.ingress.Ports()
			}
			return n
		},
		dump: s.dumpMemory, died: s.died,
	}
	var hosts []string
	if s.spec.Net.Egress != nil || s.otlp != nil { // the proxy or the collector may have its name from there
		hosts = append(hosts, "/etc/hosts")
	}
	if err := confine(s.spec.Dirs, hosts...); err != nil {
		return err
	}
	go c.serve(ctx, s.control)
	return s.serveMetrics(ctx)
}

// dumpMemory writes the guest's memory to w, by way of a file without a name:
// QEMU needs one that it can seek in.
func (s *sandbox) dumpMemory(ctx context.Context, w io.Writer) error {
	f, err := os.CreateTemp(s.spec.Dirs.State, "memory")
	if err != nil {
		return fmt.Errorf("dump memory: %w", err)
	}
	defer f.Close()
	os.Remove(f.Name())
	if err := s.machine.DumpMemory(ctx, f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("dump memory: %w", err)
	}
	_, err = io.Copy(w, f)
	return err
}

// record puts a step of the sandbox's life on record.
func (s *sandbox) record(what, detail string) error {
	if s.log == nil { // it failed before there was one
		return nil
	}
	return s.log.Append(audit.Event{Event: audit.Lifecycle, Detail: strings.TrimSpace(what + " " + detail)})
}

// close ends what start has brought up, the machine first, and removes the
// runtime directory.
func (s *sandbox) close() {
	if s.machine != nil {
		s.machine.Kill()
		s.machine.Wait()
	}
	if s.control != nil {
		s.control.Close()
	}
	if s.boundary != nil {
		s.boundary.close()
	}
	if s.ingress != nil {
		s.ingress.Close()
	}
	if s.log != nil {
		s.log.Append(audit.Event{Event: audit.Lifecycle, Detail: audit.Ended})
		s.log.Close()
		s.endExport()
		s.tell.send(Message{Log: &LogEnd{Lines: s.log.Lines(), Head: s.log.Head()}})
	}
	for _, f := range s.files {
		f.Close()
	}
	os.RemoveAll(s.spec.Dirs.Runtime)
}
