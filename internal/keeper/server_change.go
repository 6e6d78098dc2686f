package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cutoutdev/cutout/internal/secret"
	"github.com/cutoutdev/cutout/internal/source"
)

// A change is a request with the JSON of a [Change] whose connection is
// upgraded. If values belong to it the client then passes a socket, on which
// they come as at a start, straight from the source helper into the store; at
// last the keeper says what it has done.
const changeProtocol = "cutout-change/1"

const (
	maxChange = 1 << 20
	// valuesLimit is for values that were read before the change was asked for.
	valuesLimit = 30 * time.Second
)

// A changeOutcome is the keeper's last word on a change.
type changeOutcome struct {
	Changed Changed  `json:"changed"`
	Failed  *Failure `json:"failed,omitempty"`
}

func (c *control) change(w http.ResponseWriter, r *http.Request) {
	var change Change
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxChange))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&change); err != nil {
		fail(w, http.StatusBadRequest, errors.New("the change is not understood"))
		return
	}
	if r.Header.Get("Upgrade") != changeProtocol {
		fail(w, http.StatusUpgradeRequired, fmt.Errorf("changes speak %s", changeProtocol))
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Time{})
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", changeProtocol)
	var out changeOutcome
	out.Changed, err = c.secrets.change(r.Context(), change, func(set []*secret.Secret) (int, error) {
		return c.secrets.receive(conn.(*net.UnixConn), set)
	})
	if err != nil {
		out.Failed = failure(err)
	}
	json.NewEncoder(conn).Encode(out)
}

// receive reads the values of set from the socket that conn passes, and returns
// it.
func (h *holder) receive(conn *net.UnixConn, set []*secret.Secret) (fd int, err error) {
	if fd, err = receiveFD(conn); err != nil {
		return -1, fmt.Errorf("receive values: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	// Reads block; this ends them.
	limit := time.AfterFunc(valuesLimit, func() { unix.Shutdown(fd, unix.SHUT_RDWR) })
	defer limit.Stop()
	var head source.Header
	if err := receiveJSON(fd, source.MaxHeader, &head); err != nil {
		return fd, err
	}
	spec := Spec{}
	for _, s := range set {
		spec.Secrets = append(spec.Secrets, *s)
	}
	if err := checkHeader(head, spec); err != nil {
		return fd, err
	}
	values, err := receiveValues(fd, head, spec, h.store)
	for i, v := range values {
		set[i].Value, set[i].Expires = v.Value, v.Expires
	}
	return fd, err
}

// receiveFD takes the one file that conn passes.
func receiveFD(conn *net.UnixConn) (int, error) {
	conn.SetReadDeadline(time.Now().Add(valuesLimit))
	defer conn.SetReadDeadline(time.Time{})
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, flags, _, err := conn.ReadMsgUnix(b[:], oob)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 || flags&unix.MSG_CTRUNC != 0 {
		return 0, errors.New("no socket was passed")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, errors.New("no socket was passed")
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], false); err != nil {
		unix.Close(fds[0])
		return 0, err
	}
	return fds[0], nil
}
