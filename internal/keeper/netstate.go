package keeper

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/cutoutdev/cutout/internal/conntrack"
	"github.com/cutoutdev/cutout/internal/ingress"
)

// A NetState is what goes over the boundary at one moment.
type NetState struct {
	Flows     []conntrack.Flow `json:"connections"`
	Published []ingress.Port   `json:"published,omitempty"`
	// Dropped counts the guest's packets that went no further, by cause.
	Dropped map[string]uint64 `json:"dropped,omitempty"`
}

func (b *boundary) netState() NetState {
	n := NetState{Flows: b.conns.Flows()}
	if b.stack != nil {
		for cause, count := range b.stack.Counters().Dropped {
			if n.Dropped == nil {
				n.Dropped = make(map[string]uint64)
			}
			n.Dropped[cause.String()] = count
		}
	}
	return n
}

// maxNetState bounds what a keeper may tell: as many connections as a sandbox
// may have, with the longest names.
const maxNetState = 16 << 20

// Net asks for the live connections.
func (c *Client) Net(ctx context.Context) (NetState, error) {
	var n NetState
	body, err := c.call(ctx, http.MethodGet, "/v1/net", nil)
	if err != nil {
		return n, err
	}
	defer body.Close()
	return n, json.NewDecoder(io.LimitReader(body, maxNetState)).Decode(&n)
}
