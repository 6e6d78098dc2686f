package keeper

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"
)

// Change has the keeper make a change, whose values it reads from values, a
// socket; nil if there are none. It returns when the change has taken effect:
// with an error nothing is changed, but requests that do not end.
func (c *Client) Change(ctx context.Context, change Change, values *os.File) (Changed, error) {
	body, err := json.Marshal(change)
	if err != nil {
		return Changed{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://keeper/v1/secrets", bytes.NewReader(body))
	if err != nil {
		return Changed{}, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", changeProtocol)
	conn, err := c.dial(ctx)
	if err != nil {
		return Changed{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	br := bufio.NewReader(conn)
	resp, err := roundTrip(conn, br, req)
	if err != nil {
		return Changed{}, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return Changed{}, apiError(resp)
	}
	if values != nil {
		if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte{0}, unix.UnixRights(int(values.Fd())), nil); err != nil {
			return Changed{}, fmt.Errorf("pass values: %w", err)
		}
	}
	var out changeOutcome
	if err := json.NewDecoder(io.LimitReader(br, maxMessage)).Decode(&out); err != nil {
		return Changed{}, fmt.Errorf("the keeper has not said what it did: %w", err)
	}
	if out.Failed != nil {
		return out.Changed, out.Failed
	}
	return out.Changed, nil
}
