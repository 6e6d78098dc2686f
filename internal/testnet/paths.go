package testnet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Paths answers like this:
//
//	/ok              "ok"
//	/echo, /echo/…   the whole request as text: line, headers, body, trailers
//	/echo.json       the same as JSON
//	/echo/headers    each request header as X-Echo-NAME, no body
//	/echo/cookie     the request's headers in Set-Cookie
//	/echo/location   307 with the request's headers in Location's query
//	/echo/status     the request's headers in the status text (HTTP/1 only)
//	/echo/trailer    the request's headers and body in a trailer
//	/echo/early      the request's headers in a 103 before the answer
//	/upload          {"bytes":N,"sha256":"…"} of the body
//	/stream?n=&ms=   n server-sent events, ms apart, with Authorization
//	/bytes?n=        n bytes
//	/status/CODE     that status
//	/abort           no answer: the connection or stream is cut
//
// and everything else with 404. Paths are taken as they are: nothing is
// cleaned or redirected.
func Paths() http.Handler {
	exact := map[string]http.HandlerFunc{
		"/ok":            func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") },
		"/echo.json":     echoJSON,
		"/echo/headers":  echoHeaders,
		"/echo/cookie":   echoCookie,
		"/echo/location": echoLocation,
		"/echo/status":   echoStatus,
		"/echo/trailer":  echoTrailer,
		"/echo/early":    echoEarly,
		"/upload":        upload,
		"/stream":        stream,
		"/bytes":         zeroBytes,
		"/abort":         func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch h, path := exact[r.URL.Path], r.URL.Path; {
		case h != nil:
			h(w, r)
		case path == "/echo" || strings.HasPrefix(path, "/echo/"):
			echo(w, r)
		case strings.HasPrefix(path, "/status/"):
			status(w, strings.TrimPrefix(path, "/status/"))
		default:
			http.NotFound(w, r)
		}
	})
}

func status(w http.ResponseWriter, text string) {
	code, err := strconv.Atoi(text)
	if err != nil || code < 200 || code > 999 {
		code = http.StatusBadRequest
	}
	w.WriteHeader(code)
}

func echoHeaders(w http.ResponseWriter, r *http.Request) {
	for k, vv := range r.Header {
		w.Header()["X-Echo-"+k] = vv
	}
}

func echoCookie(w http.ResponseWriter, r *http.Request) {
	w.Header()["Set-Cookie"] = []string{"echo=" + strings.ReplaceAll(headerLine(r), ";", ",") + "; Path=/"}
}

func echoLocation(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Location", "/ok?"+strings.ReplaceAll(headerLine(r), " ", "+"))
	w.WriteHeader(http.StatusTemporaryRedirect)
}

func echoTrailer(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Trailer", "X-Echo")
	io.WriteString(w, "see the trailer\n")
	w.Header().Set("X-Echo", headerLine(r)+" "+oneLine(string(body)))
}

func echoEarly(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Echo", headerLine(r))
	w.WriteHeader(http.StatusEarlyHints)
	w.Header().Del("X-Echo")
	io.WriteString(w, "ok\n")
}

func zeroBytes(w http.ResponseWriter, r *http.Request) {
	n := number(r, "n", 1024)
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.CopyN(w, zeroes{}, n)
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "%s %s %s\nHost: %s\n", r.Method, r.RequestURI, r.Proto, r.Host)
	r.Header.Write(w)
	io.WriteString(w, "\n")
	http.NewResponseController(w).EnableFullDuplex()
	io.Copy(w, r.Body)
	r.Trailer.Write(w)
}

func echoJSON(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"method": r.Method, "target": r.RequestURI, "proto": r.Proto, "host": r.Host,
		"headers": r.Header, "body": string(body), "trailers": r.Trailer,
	})
}

// echoStatus writes the response itself: net/http chooses the status text.
func echoStatus(w http.ResponseWriter, r *http.Request) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 200 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", headerLine(r))
}

func upload(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, "{\"bytes\":%d,\"sha256\":%q}\n", n, hex.EncodeToString(sum.Sum(nil)))
}

func stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	for i := range number(r, "n", 10) {
		fmt.Fprintf(w, "data: %d %s\n\n", i, r.Header.Get("Authorization"))
		if rc.Flush() != nil {
			return
		}
		time.Sleep(time.Duration(number(r, "ms", 10)) * time.Millisecond)
	}
}

func number(r *http.Request, name string, otherwise int64) int64 {
	n, err := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
	if err != nil || n < 0 {
		return otherwise
	}
	return n
}

func headerLine(r *http.Request) string {
	var b strings.Builder
	r.Header.Write(&b)
	return oneLine(b.String())
}

func oneLine(s string) string {
	return strings.TrimSpace(strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ").Replace(s))
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }
