package netstack

// A Limit is one of the stack's that the guest has reached, for people.
type Limit string

// The limits.
const (
	ManyTCP       Limit = "TCP connections: the next is refused"
	ManyPending   Limit = "half-open TCP connections: the next waits"
	ManyQueries   Limit = "DNS queries at once: the next is dropped"
	RateFromGuest Limit = "rate from the guest: it waits"
	RateToGuest   Limit = "rate to the guest: it waits"
)

// limited returns a function that tells l.
func (c *Config) limited(l Limit) func() {
	return func() {
		if c.Limited != nil {
			c.Limited(l)
		}
	}
}
