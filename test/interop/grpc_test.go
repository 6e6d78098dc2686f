//go:build linux

package interop

import (
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cutoutdev/cutout/internal/testnet/boundary"
	"github.com/cutoutdev/cutout/internal/testnet/talk"
)

// asClient makes the test binary a gRPC client, to be run in the guest.
const asClient = "CUTOUT_INTEROP_GRPC"

// gRPC, with Google's library on both sides. A refusal is a status that the
// client understands.
func TestGRPC(t *testing.T) {
	need(t)
	g := newGuest(t, nil)
	cert, err := g.CA.Cert("good.test")
	if err != nil {
		t.Fatal(err)
	}
	server, err := talk.Start(cert)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	g.Routes.Set(netip.AddrPortFrom(boundary.GoodAddr, 443), server.Addr())

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g.env = append(g.env, asClient+"=1")
	out, err := g.run("", self)
	var report talk.Report
	if jerr := json.Unmarshal([]byte(out), &report); err != nil || jerr != nil {
		t.Fatalf("%v, %v\n%s", err, jerr, out)
	}
	g.clean(t, out)
	want := talk.Report{
		Session: talk.Session{Credential: "$MSB_API_KEY", Messages: report.Messages, SHA256: report.SHA256},
		Status:  "OutOfRange: the credential was Bearer $MSB_API_KEY",
		Trailer: map[string][]string{"credential": {"Bearer $MSB_API_KEY"}},
		Refused: "PermissionDenied",
	}
	if d := cmp.Diff(want, report); d != "" {
		t.Errorf("the client says (-want +got):\n%s", d)
	}
	want.Credential = "Bearer " + boundary.Value
	if d := cmp.Diff(want.Session, <-server.Sessions); d != "" || len(server.Sessions) > 0 {
		t.Errorf("the server got (-want +got):\n%s\nand %d more streams", d, len(server.Sessions))
	}
}
