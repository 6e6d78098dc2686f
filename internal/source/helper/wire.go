package helper

// CLI and helper converse over one inherited socket: the CLI asks, the
// helper answers. A message is its length and JSON; behind a read come the
// bare values of environment variables. No answer holds a value: those go
// over another socket, whose far end is the keeper's.

// An ask is one request of the CLI. Exactly one field is set.
type ask struct {
	Read     []Request `json:"read,omitempty"`
	Env      []envVar  `json:"env,omitempty"` // with Read: the values that follow
	Check    []Text    `json:"check,omitempty"`
	HandOver bool      `json:"hand_over,omitempty"` // write the values to the keeper's socket

	variables map[string]string // that followed
}

type envVar struct {
	Name string `json:"name"`
	Len  int    `json:"len"`
}

// An answer is the helper's.
type answer struct {
	Results []Result `json:"results,omitempty"`
	Failed  string   `json:"failed,omitempty"`
	Hint    string   `json:"hint,omitempty"`
}

// maxMessage bounds a message: all that a user wrote, and the environment of
// an image.
const maxMessage = 64 << 20
