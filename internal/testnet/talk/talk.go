// Package talk is a gRPC service for tests, client and server, with Google's
// library on both sides: a bidirectional stream of messages of bytes. It is
// apart from testnet so that nothing else links gRPC.
package talk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A Session is what the server got in one stream.
type Session struct {
	Credential string // of the metadata
	Messages   int
	SHA256     string // of the messages, one after the other
}

// A Server sends each message back at once, and at the end of the stream the
// credential as a trailer and in the status.
type Server struct {
	Sessions chan Session // one for each stream that the client ended

	grpc *grpc.Server
	addr netip.AddrPort
}

// Start starts a server on a free port of 127.0.0.1. Close it after use.
func Start(cert tls.Certificate) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{
		Sessions: make(chan Session, 100),
		grpc:     grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert))),
		addr:     netip.MustParseAddrPort(l.Addr().String()),
	}
	s.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Talk", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Talk", ServerStreams: true, ClientStreams: true, Handler: s.serve}},
	}, nil)
	go s.grpc.Serve(l)
	return s, nil
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Close ends the server and every stream.
func (s *Server) Close() { s.grpc.Stop() }

func (s *Server) serve(_ any, stream grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	got := Session{Credential: strings.Join(md.Get("authorization"), ",")}
	stream.SetTrailer(metadata.Pairs("credential", got.Credential))
	sum := sha256.New()
	for {
		var m wrapperspb.BytesValue
		if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
			got.SHA256 = hex.EncodeToString(sum.Sum(nil))
			s.Sessions <- got
			return status.Error(codes.OutOfRange, "the credential was "+got.Credential)
		} else if err != nil {
			return err
		}
		got.Messages++
		sum.Write(m.GetValue())
		if err := stream.SendMsg(&m); err != nil {
			return err
		}
	}
}

// A Report is what the client says of its stream.
type Report struct {
	Session
	Status  string              // how the stream ended
	Trailer map[string][]string // and with what
	Refused string              // how one ends whose metadata has the credential where it may not be
}

// sizes are those of the client's messages: about HTTP/2's frames and a
// window's worth.
var sizes = []int{0, 1, 100, 16379, 16384, 70_000, 1 << 20}

// Client opens a stream to target with credential, sends messages, the
// next one when the last has come back unchanged, and prints a Report. The
// messages hold the credential's text, too.
func Client(target, rootsFile, credential string) error {
	roots := x509.NewCertPool()
	file, err := os.ReadFile(rootsFile)
	if err != nil {
		return err
	}
	roots.AppendCertsFromPEM(file)
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "")))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	report, err := converse(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+credential), conn, credential)
	if err != nil {
		return err
	}
	stream, err := open(metadata.AppendToOutgoingContext(ctx, "title", credential), conn)
	if err != nil {
		return err
	}
	report.Refused = status.Code(stream.RecvMsg(new(wrapperspb.BytesValue))).String()
	return json.NewEncoder(os.Stdout).Encode(report)
}

func open(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	return conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Talk/Talk")
}

func converse(ctx context.Context, conn *grpc.ClientConn, credential string) (Report, error) {
	stream, err := open(ctx, conn)
	if err != nil {
		return Report{}, err
	}
	r := Report{Session: Session{Credential: credential}}
	sum, random := sha256.New(), rand.NewChaCha8([32]byte{1})
	for _, n := range sizes {
		text := make([]byte, n)
		random.Read(text)
		text = append(text, credential...)
		sum.Write(text)
		r.Messages++
		if err := stream.SendMsg(wrapperspb.Bytes(text)); err != nil {
			return r, err
		}
		var m wrapperspb.BytesValue
		if err := stream.RecvMsg(&m); err != nil || !bytes.Equal(m.GetValue(), text) {
			return r, fmt.Errorf("message of %d bytes came back as one of %d, %w", len(text), len(m.GetValue()), err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return r, err
	}
	end := status.Convert(stream.RecvMsg(new(wrapperspb.BytesValue)))
	r.SHA256 = hex.EncodeToString(sum.Sum(nil))
	r.Status, r.Trailer = end.Code().String()+": "+end.Message(), stream.Trailer()
	return r, nil
}
