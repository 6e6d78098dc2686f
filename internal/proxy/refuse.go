package proxy

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/cutoutdev/cutout/internal/audit"
	"github.com/cutoutdev/cutout/internal/policy"
	"github.com/cutoutdev/cutout/internal/secret"
)

// A refusal is why a request is not forwarded.
type refusal struct {
	status    int
	reason    policy.Reason
	secret    *secret.Secret // nil: the request was refused whatever it holds
	surface   string         // where the placeholder stands; "" if there is none
	detail    string         // more than the reason says; never a value
	terminate bool           // end the sandbox too
	aborted   bool           // the request's head had gone up
	last      bool           // the connection ends with it
}

// problem is the body of a refusal, RFC 9457. It names the secret, which the
// guest knows as its variable, but never a value and never the list of hosts
// that are allowed.
type problem struct {
	Type   string        `json:"type"`
	Title  string        `json:"title"`
	Status int           `json:"status"`
	Detail string        `json:"detail"`
	Reason policy.Reason `json:"reason"`
	Secret string        `json:"secret,omitempty"`
	Host   string        `json:"host,omitempty"`
	Hint   string        `json:"hint"`
}

// refuse answers the request with r and records it.
func (q *request) refuse(w http.ResponseWriter, r *refusal) {
	e := q.event(audit.Refused)
	if r.aborted {
		e.Event = audit.Aborted
	}
	e.Reason, e.Surface, e.Detail = r.reason, r.surface, r.detail
	body := problem{
		Type:   "about:blank",
		Title:  http.StatusText(r.status),
		Status: r.status,
		Detail: "cutout: " + r.reason.What(),
		Reason: r.reason,
		Host:   e.Host,
		Hint:   r.reason.Hint(),
	}
	if r.detail != "" {
		body.Detail += ": " + r.detail
	}
	if r.secret != nil {
		e.Secret, body.Secret = r.secret.Name, r.secret.Name
	}
	q.audit(e)

	text, err := json.Marshal(body)
	if err != nil { // strings and a number
		text = []byte("{}")
	}
	h := w.Header()
	clear(h)
	h.Set("Cache-Control", "no-store")
	if (r.last || r.aborted) && q.in.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	if grpcOf(q.in.Header) != noGRPC {
		q.refuseGRPC(h, r)
		w.WriteHeader(http.StatusOK)
	} else {
		h.Set("Content-Type", "application/problem+json")
		w.WriteHeader(r.status)
		w.Write(append(text, '\n'))
	}
	if r.terminate {
		http.NewResponseController(w).Flush()
		q.cfg.Terminate(r.reason)
	}
}

// Error is the refusal in a line, for the Close frame of a WebSocket.
func (r *refusal) Error() string {
	text := "cutout: " + string(r.reason)
	if r.secret != nil {
		text += " " + r.secret.Name
	}
	return text + ": " + r.reason.Hint()
}

// refused is the status of a refusal for reason.
func refused(reason policy.Reason) *refusal {
	status := http.StatusForbidden
	switch reason {
	case policy.AuthorityMismatch:
		status = http.StatusMisdirectedRequest
	case policy.MalformedRequest:
		status = http.StatusBadRequest
	case policy.BodyTooLarge:
		status = http.StatusRequestEntityTooLarge
	case policy.UpstreamFailed, policy.ProxyFailed, policy.ProxyAuthFailed, policy.ProxyRefused, policy.Unscannable:
		status = http.StatusBadGateway
	case policy.AuditUnavailable, policy.LimitReached:
		status = http.StatusServiceUnavailable
	}
	return &refusal{status: status, reason: reason}
}

// pathOf returns a request target without its query, for the log.
func pathOf(target string) string {
	path, _, _ := strings.Cut(target, "?")
	return path
}
