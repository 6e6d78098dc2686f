//go:build linux

package interop

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cutoutdev/cutout/internal/testnet/boundary"
)

// asClient makes the test binary a gRPC client, to be run in the guest.
const asClient = "CUTOUT_INTEROP_GRPC"

// talk is a bidirectional stream of strings; the server sends each back with
// the credential that it was called with, which it also says at the end.
var talk = grpc.ServiceDesc{
	ServiceName: "interop.Talk", HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{StreamName: "Talk", ServerStreams: true, ClientStreams: true, Handler: serveTalk}},
}

func serveTalk(_ any, s grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	credential := strings.Join(md.Get("authorization"), ",")
	s.SetTrailer(metadata.Pairs("credential", credential))
	for {
		var m wrapperspb.StringValue
		if err := s.RecvMsg(&m); err == io.EOF {
			return status.Error(codes.OutOfRange, "the credential was "+credential)
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(wrapperspb.String(m.GetValue())); err != nil {
			return err
		}
	}
}

// talkAsGuest is the client: it prints what it got.
func talkAsGuest() error {
	roots := x509.NewCertPool()
	file, err := os.ReadFile(bundle)
	if err != nil {
		return err
	}
	roots.AppendCertsFromPEM(file)
	conn, err := grpc.NewClient("good.test:443", grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "")))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("API_KEY"))
	s, err := conn.NewStream(ctx, &talk.Streams[0], "/interop.Talk/Talk")
	if err != nil {
		return err
	}
	for _, n := range []int{0, 1, 100, 1 << 20} { // in turn: both sides stay open
		var m wrapperspb.StringValue
		if err := s.SendMsg(wrapperspb.String(strings.Repeat("x", n))); err != nil {
			return err
		}
		if err := s.RecvMsg(&m); err != nil || len(m.GetValue()) != n {
			return fmt.Errorf("%d bytes, %w", len(m.GetValue()), err)
		}
	}
	s.CloseSend()
	err = s.RecvMsg(new(wrapperspb.StringValue))
	json.NewEncoder(os.Stdout).Encode([]any{status.Code(err).String(), status.Convert(err).Message(), s.Trailer()})

	// A refusal is a status that the client understands.
	refused := metadata.AppendToOutgoingContext(ctx, "title", os.Getenv("API_KEY"))
	s, err = conn.NewStream(refused, &talk.Streams[0], "/interop.Talk/Talk")
	if err != nil {
		return err
	}
	err = s.RecvMsg(new(wrapperspb.StringValue))
	fmt.Println(status.Code(err), status.Convert(err).Message())
	return nil
}

// gRPC, with Google's library on both sides.
func TestGRPC(t *testing.T) {
	need(t)
	g := newGuest(t, nil)
	cert, err := g.CA.Cert("good.test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 10)
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)), grpc.StreamInterceptor(
		func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			md, _ := metadata.FromIncomingContext(s.Context())
			seen <- fmt.Sprint(md.Get("authorization"))
			return h(srv, s)
		}))
	server.RegisterService(&talk, nil)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	g.Routes.Set(netip.AddrPortFrom(boundary.GoodAddr, 443), netip.MustParseAddrPort(l.Addr().String()))

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g.env = append(g.env, asClient+"=1")
	out, err := g.run("", self)
	lines := bufio.NewScanner(strings.NewReader(out))
	for _, want := range []string{
		`["OutOfRange","the credential was Bearer $MSB_API_KEY",{"credential":["Bearer $MSB_API_KEY"]}]`,
		"PermissionDenied ",
	} {
		if lines.Scan(); err != nil || !strings.HasPrefix(lines.Text(), want) {
			t.Errorf("%v\n%s\nwant %s", err, out, want)
		}
	}
	g.clean(t, out)
	if got := <-seen; got != "[Bearer "+boundary.Value+"]" || len(seen) > 0 {
		t.Errorf("the server got %s and %d more", got, len(seen))
	}
}
