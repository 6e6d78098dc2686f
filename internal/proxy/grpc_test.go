package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A grpcServer is a real server that gives back the credential that it gets,
// in every place that gRPC has.
type grpcServer struct {
	grpc_testing.UnimplementedTestServiceServer
}

func credential(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md["authorization"], ",")
}

func (grpcServer) UnaryCall(ctx context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	got := credential(ctx)
	grpc.SetHeader(ctx, metadata.Pairs("x-echo", got, "x-echo-bin", "\x00"+got))
	grpc.SetTrailer(ctx, metadata.Pairs("x-last", got, "x-last-bin", got+"\xff"))
	if s := r.GetResponseStatus(); s.GetCode() != 0 {
		st, _ := status.New(codes.Code(s.Code), "naïve "+got).WithDetails(&grpc_testing.Payload{Body: []byte("detail " + got)})
		return nil, st.Err()
	}
	return &grpc_testing.SimpleResponse{Username: got, Payload: r.Payload}, nil
}

func (grpcServer) FullDuplexCall(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	got := credential(stream.Context())
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		// Ends in what could begin the value, as a message may.
		p := &grpc_testing.Payload{Body: []byte(string(r.Payload.GetBody()) + got + "!" + value[:3])}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: p}); err != nil {
			return err
		}
	}
}

// grpcWorld is a world whose good.test is a grpc-go server.
func grpcWorld(t *testing.T, options ...option) (*world, grpc_testing.TestServiceClient) {
	t.Helper()
	w := newWorld(t, "h2", append([]option{func(w *world) {
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		cert := must(w.ca.Cert("good.test"))
		srv := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
		grpc_testing.RegisterTestServiceServer(srv, grpcServer{})
		go srv.Serve(l)
		w.root.Cleanup(srv.Stop)
		w.to[goodAddr] = netip.MustParseAddrPort(l.Addr().String())
	}}, options...)...)
	return w, w.grpcClient()
}

func (w *world) grpcClient() grpc_testing.TestServiceClient {
	w.t.Helper()
	cfg := w.guestTLS()
	cfg.ServerName = "good.test"
	c, err := grpc.NewClient("passthrough:///good.test",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.connect(ctx, goodAddr) }),
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.root.Cleanup(func() { c.Close() })
	return grpc_testing.NewTestServiceClient(c)
}

func grpcContext(t *testing.T, pairs ...string) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, append(pairs, "authorization", "Bearer "+placeholder)...)
}

// padded is the placeholder as long as the value.
var padded = placeholder + strings.Repeat("*", len(value)-len(placeholder))

// TestGRPC: metadata are headers, and whatever a server gives back has the
// placeholder in it; the lengths inside messages stay right.
func TestGRPC(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		t.Run(fmt.Sprint("compressed ", compressed), func(t *testing.T) {
			w, c := grpcWorld(t)
			var header, trailer metadata.MD
			options := []grpc.CallOption{grpc.Header(&header), grpc.Trailer(&trailer)}
			if compressed {
				options = append(options, grpc.UseCompressor(grpcgzip.Name))
			}
			body := bytes.Repeat([]byte("0123456789"), 10_000)
			r, err := c.UnaryCall(grpcContext(t), &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: body}}, options...)
			if err != nil {
				t.Fatal(err)
			}
			if r.Username != "Bearer "+padded || !bytes.Equal(r.Payload.Body, body) {
				t.Errorf("answer is %q and %d bytes", r.Username, len(r.Payload.Body))
			}
			for what, got := range map[string]string{
				"header": strings.Join(header["x-echo"], ""), "trailer": strings.Join(trailer["x-last"], ""),
			} {
				if got != "Bearer "+placeholder {
					t.Errorf("%s is %q", what, got)
				}
			}
			if got := strings.Join(header["x-echo-bin"], ""); got != "\x00Bearer "+padded {
				t.Errorf("binary header is %q", got)
			}
			if got := strings.Join(trailer["x-last-bin"], ""); got != "Bearer "+padded+"\xff" {
				t.Errorf("binary trailer is %q", got)
			}
			w.expect(audit.Scrubbed, policy.None)
		})
	}
}

// TestGRPCStatus: a failure keeps its status, and its details can be read.
func TestGRPCStatus(t *testing.T) {
	w, c := grpcWorld(t)
	_, err := c.UnaryCall(grpcContext(t), &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: 5}})
	s := status.Convert(err)
	// grpc-go takes the message from the details, where lengths stand.
	if s.Code() != codes.NotFound || s.Message() != "naïve Bearer "+padded {
		t.Errorf("status is %v %q", s.Code(), s.Message())
	}
	if d := s.Details(); len(d) != 1 || string(d[0].(*grpc_testing.Payload).GetBody()) != "detail Bearer "+padded {
		t.Errorf("details are %q", d)
	}
	w.expect(audit.Scrubbed, policy.None)
}

// TestGRPCConversation: both sides speak in turns, and the end of a message
// is never held back.
func TestGRPCConversation(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		_, c := grpcWorld(t)
		var options []grpc.CallOption
		if compressed {
			options = append(options, grpc.UseCompressor(grpcgzip.Name))
		}
		stream, err := c.FullDuplexCall(grpcContext(t), options...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			text := fmt.Sprint(i)
			if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte(text)}}); err != nil {
				t.Fatal(err)
			}
			r, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got := string(r.Payload.Body); got != text+"Bearer "+padded+"!"+value[:3] {
				t.Fatalf("heard %q", got)
			}
		}
		stream.CloseSend()
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("ends with %v", err)
		}
	}
}

// TestGRPCRefusals: a refusal is a status that the client's library gives its
// caller, with the reason, the secret and what to change.
func TestGRPCRefusals(t *testing.T) {
	call := func(c grpc_testing.TestServiceClient, pairs ...string) *status.Status {
		_, err := c.UnaryCall(grpcContext(t, pairs...), &grpc_testing.SimpleRequest{})
		return status.Convert(err)
	}
	check := func(w *world, s *status.Status, code codes.Code, reason policy.Reason) {
		t.Helper()
		if s.Code() != code || !strings.HasPrefix(s.Message(), "cutout: "+string(reason)) || !strings.Contains(s.Message(), reason.Hint()) {
			t.Errorf("status is %v %q, want %v %s", s.Code(), s.Message(), code, reason)
		}
		w.expect(audit.Refused, reason)
	}
	w, c := grpcWorld(t)
	s := call(c, "x-note", placeholder)
	check(w, s, codes.PermissionDenied, policy.SurfaceOff)
	if !strings.Contains(s.Message(), " API_KEY: ") {
		t.Errorf("the secret is not named: %q", s.Message())
	}
	check(w, call(c, "x-note-bin", "\x0a\x0c"+placeholder), codes.PermissionDenied, policy.SurfaceOff)
	many := []string{"authorization", placeholder, "authorization", placeholder, "authorization", placeholder, "authorization", placeholder}
	check(w, call(c, many...), codes.InvalidArgument, policy.TooMany)

	w, c = grpcWorld(t, secrets(func(w *world) []*secret.Secret {
		return []*secret.Secret{w.secret("API_KEY", placeholder, value, "good.test", 444)}
	}), func(w *world) { w.cfg.Intercept = All })
	check(w, call(c), codes.PermissionDenied, policy.HostNotAllowed)
}

// TestGRPCMapping: every reason has a code, and those that may pass by
// themselves alone are told as UNAVAILABLE.
func TestGRPCMapping(t *testing.T) {
	for _, r := range policy.Reasons() {
		if code := grpcCode(r); code == 0 || (code == grpcUnavailable) != (r == policy.UpstreamFailed || r == policy.ProxyFailed) {
			t.Errorf("%s is %d", r, code)
		}
	}
	for _, s := range []string{"", "plain", "100 % naïve\r\n"} {
		if e := grpcEscape(s); grpcUnescape(e) != s || strings.ContainsAny(e, "\r\nï") {
			t.Errorf("%q becomes %q", s, e)
		}
	}
}

// grpcMsg is one length-prefixed message.
func grpcMsg(flag byte, payload string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(payload)))) + payload
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.String()
}

// grpcAnswer makes good.test answer with these messages, in pieces.
func grpcAnswer(kind, encoding, body string, piece int) option {
	return handler(func(rw http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Grpc-Accept-Encoding"); got != "identity" {
			panic("grpc-accept-encoding is " + got)
		}
		rw.Header().Set("Content-Type", kind)
		if encoding != "" {
			rw.Header().Set("Grpc-Encoding", encoding)
		}
		rw.Header().Set("Trailer", "Grpc-Status")
		for rest := body; rest != ""; rest = rest[min(piece, len(rest)):] {
			io.WriteString(rw, rest[:min(piece, len(rest))])
			rw.(http.Flusher).Flush()
		}
		rw.Header().Set("Grpc-Status", "0")
	})
}

// TestGRPCMessages: what the messages of an answer become. C2.
func TestGRPCMessages(t *testing.T) {
	const unscannable = "9"
	one := grpcMsg(0, "a "+value) + grpcMsg(0, "") + grpcMsg(1, "") + grpcMsg(0, value+" b")
	clean := grpcMsg(0, "a "+padded) + grpcMsg(0, "") + grpcMsg(1, "") + grpcMsg(0, padded+" b")
	for name, tt := range map[string]struct {
		kind, encoding, body, want string
		status                     string
		inert                      bool // the request carries no value
	}{
		"plain":              {"application/grpc", "", one, clean, "0", false},
		"with a codec":       {"application/grpc+json; charset=utf-8", "", one, clean, "0", false},
		"gRPC-Web":           {"application/grpc-web+proto", "", one + grpcMsg(0x80, "x: "+value), clean + grpcMsg(0x80, "x: "+padded), "0", false},
		"gRPC-Web text":      {"application/grpc-web-text", "", b64(grpcMsg(0, "12"+value)), b64(grpcMsg(0, "12t"+padded[1:len(padded)-1]+"(")), "0", false}, // letters that a neighbour shares are left
		"gzip":               {"application/grpc", "gzip", grpcMsg(0, value) + grpcMsg(1, zipped("a "+value)) + grpcMsg(0, value), grpcMsg(0, padded) + grpcMsg(0, "a "+padded) + grpcMsg(0, padded), "0", false},
		"unknown, not used":  {"application/grpc", "snappy", grpcMsg(0, value), grpcMsg(0, padded), "0", false},
		"unknown":            {"application/grpc", "snappy", grpcMsg(0, value) + grpcMsg(1, "snap"), grpcMsg(0, padded), unscannable, false},
		"unknown, no value":  {"application/grpc", "snappy", grpcMsg(1, "snap"), "", unscannable, true},
		"damaged gzip":       {"application/grpc", "gzip", grpcMsg(1, "damaged"), "", unscannable, false},
		"a bomb":             {"application/grpc", "gzip", grpcMsg(1, zipped(strings.Repeat("x", grpcMessage+1))), "", unscannable, false},
		"too long":           {"application/grpc", "gzip", grpcMsg(1, "x")[:1] + "\x7f\xff\xff\xff", "", unscannable, false},
		"flag without name":  {"application/grpc", "", grpcMsg(1, "what"), "", unscannable, false},
		"no gRPC":            {"application/grpc", "", "<html>" + value + "</html>", "<html>" + padded + "</html>", "0", false},
		"cut in the prefix":  {"application/grpc", "", grpcMsg(0, value) + "\x00\x00", grpcMsg(0, padded) + "\x00\x00", "0", false},
		"cut in the message": {"application/grpc", "", grpcMsg(0, value+"xyz")[:40], grpcMsg(0, padded+"xyz")[:40], "0", false},
	} {
		for _, piece := range []int{1, 7, 1 << 20} {
			if piece == 1 && len(tt.body) > 4000 {
				continue
			}
			w := newWorld(t, "h2", grpcAnswer(tt.kind, tt.encoding, tt.body, piece))
			r := must(http.NewRequest("POST", "https://good.test/", nil))
			r.Header.Set("Content-Type", "application/grpc")
			r.Header.Set("Grpc-Accept-Encoding", "gzip,identity")
			if !tt.inert {
				r.Header.Set("Authorization", "Bearer "+placeholder)
			}
			resp, err := w.client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			w.clean(string(got))
			if string(got) != tt.want || err != nil {
				t.Errorf("%s in pieces of %d: %.200q %v, want %.200q", name, piece, got, err, tt.want)
			}
			if s := resp.Trailer.Get("Grpc-Status"); s != tt.status {
				t.Errorf("%s in pieces of %d: status is %q", name, piece, s)
			}
			if tt.status == unscannable {
				w.expect(audit.Aborted, policy.Unscannable)
			}
		}
	}
}

// TestGRPCForgedFraming: a server that gives back what it gets, Content-Type
// too, lets the guest choose where "messages" end. The value is found across
// them, but for the few bytes that an end releases.
func TestGRPCForgedFraming(t *testing.T) {
	for cut := range len(value) {
		w := newWorld(t, "h2", handler(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/grpc")
			rw.Write([]byte{0, 0, 0, 0, byte(cut)})
			io.WriteString(rw, value+strings.Repeat("\x00", 50))
		}))
		a := w.get(w.client(), "https://good.test/", placeholder)
		if strings.Contains(a.all, value[:4]) || strings.Contains(a.all, value[4:]) {
			t.Errorf("cut at %d: the guest reads %q", cut, a.body)
		}
	}
}

// A failure of gRPC over HTTP/1, as gRPC-Web has it, stands in the head too.
func TestGRPCWebRefusal(t *testing.T) {
	protocols(t, func(t *testing.T, protocol string) {
		w := newWorld(t, protocol)
		a := w.do(w.client(), "POST", "https://good.test/", nil, func(r *http.Request) {
			r.Header.Set("Content-Type", "application/grpc-web+proto")
			r.Header.Set("X-Note", placeholder)
		})
		if a.status != 200 || a.header.Get("Grpc-Status") != "7" || a.body != "" || a.header.Get("Content-Type") != "application/grpc-web+proto" {
			t.Errorf("answer is %d %v %q %v", a.status, a.header, a.body, a.err)
		}
	})
}

// Of the two places of a message the one that is percent-encoded is decoded.
func TestGRPCMessageField(t *testing.T) {
	w := newWorld(t, "h2", handler(func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", "3")
		var all strings.Builder
		for i := range len(value) {
			fmt.Fprintf(&all, "%%%02x", value[i])
		}
		h.Set("Grpc-Message", "bad%20token "+all.String())
		h.Set("X-Bin", b64("\x01"+value)+", "+b64(value))
	}))
	a := w.do(w.client(), "POST", "https://good.test/", nil, func(r *http.Request) {
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Authorization", "Bearer "+placeholder)
	})
	if got := a.header.Get("Grpc-Message"); got != "bad token "+placeholder {
		t.Errorf("message is %q", got)
	}
	bin := strings.Split(a.header.Get("X-Bin"), ",")
	for i, want := range []string{"\x01" + padded, padded} {
		if got, ok := decodeBin(bin[i]); !ok || string(got) != want {
			t.Errorf("metadata is %q, want %q", got, want)
		}
	}
}

// One connection, one name, for gRPC too.
func TestGRPCAuthority(t *testing.T) {
	w := newWorld(t, "h2")
	a := w.do(w.client(), "POST", "https://good.test/", nil, func(r *http.Request) {
		r.Host = "evil.test"
		r.Header.Set("Content-Type", "application/grpc")
	})
	if a.status != 200 || a.header.Get("Grpc-Status") != "7" || !strings.HasPrefix(a.header.Get("Grpc-Message"), "cutout: authority_mismatch") {
		t.Errorf("answer is %d %v %v", a.status, a.header, a.err)
	}
}

// A dead server is UNAVAILABLE, which clients try again.
func TestGRPCUpstreamFails(t *testing.T) {
	w := newWorld(t, "h2", handler(func(rw http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))
	a := w.do(w.client(), "POST", "https://good.test/", nil, header("Content-Type", "application/grpc"))
	if a.header.Get("Grpc-Status") != "14" {
		t.Errorf("answer is %d %v %v", a.status, a.header, a.err)
	}
}
