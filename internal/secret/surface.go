package secret

// Surfaces are the parts of a request into which a value may be written. The
// zero Surfaces is none.
type Surfaces struct {
	Header    bool       `json:"header,omitempty"`  // the fields that carry credentials
	Headers   []string   `json:"headers,omitempty"` // further fields, canonical; "*" = all that need not be named
	Basic     bool       `json:"basic,omitempty"`   // credentials of Basic authentication
	Query     bool       `json:"query,omitempty"`
	Path      bool       `json:"path,omitempty"`
	Body      []BodyPart `json:"body,omitempty"`      // none = not in bodies
	WebSocket bool       `json:"websocket,omitempty"` // text messages
}

// A BodyPart is a part of request bodies. Its zero value is all of every
// body; at most one field is set.
type BodyPart struct {
	Type    string `json:"type,omitempty"`    // bodies of this media type, lower case
	Pointer string `json:"pointer,omitempty"` // a value in JSON, RFC 6901
	Field   string `json:"field,omitempty"`   // a field of a form
}

// DefaultSurfaces are those of a secret that names none: the places where
// APIs expect a credential and from which they do not give it back.
func DefaultSurfaces() Surfaces { return Surfaces{Header: true, Basic: true} }

// Allowed returns the surfaces of s.
func (s *Secret) Allowed() Surfaces {
	if s.Surfaces == nil {
		return DefaultSurfaces()
	}
	return *s.Surfaces
}
