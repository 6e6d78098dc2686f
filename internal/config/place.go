package config

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// An origin is a text that the user wrote and what for: the name of a flag or
// of a file's key, which are the same.
type origin struct{ key, text string }

// A textError is a mistake in one text, whose place is told if it stands in a
// file.
type textError struct {
	origin
	err error
}

func (e *textError) Error() string { return e.err.Error() }
func (e *textError) Unwrap() error { return e.err }

// In says that err, if it is one, is about a text that was written for key.
func In(key, text string, err error) error {
	if err == nil {
		return nil
	}
	return &textError{origin{key, text}, err}
}

// each parses texts that were written for key, up to the first mistake.
func each(key string, texts []string, parse func(text string) error) error {
	for _, text := range texts {
		if err := parse(text); err != nil {
			return In(key, text, err)
		}
	}
	return nil
}

// Places tell where in a file its texts stand. The zero Places are of no file.
type Places struct {
	path string
	at   map[origin]*token.Position
	own  bool // nobody but the caller and root can write it
}

// Own refuses a file that does something with the caller's rights, unless it
// is the caller's own.
func (p Places) Own(what string) error {
	if p.own {
		return nil
	}
	return hinted(fmt.Sprintf("%s is not yours alone to write, and %s", p.path, what),
		"what it says is run with your rights: read it, and then copy it, or make it yours with chmod go-w")
}

// Locate puts line and column before an error about a text of the file.
func (p Places) Locate(err error) error {
	var place *token.Position
	var look func(err error)
	look = func(err error) {
		if e, ok := err.(*textError); ok && p.at[e.origin] != nil {
			place = p.at[e.origin] // what is further inside is more exact
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			look(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				look(err)
			}
		}
	}
	look(err)
	if place == nil {
		return err
	}
	return &placedError{fmt.Sprintf("%s:%d:%d", p.path, place.Line, place.Column), err}
}

// A placedError is one with its place before it.
type placedError struct {
	place string
	err   error
}

func (e *placedError) Error() string { return e.place + ": " + e.err.Error() }
func (e *placedError) Unwrap() error { return e.err }

// placesOf lists the texts of a file as they are written for flags.
func placesOf(body ast.Node, f File) map[origin]*token.Position {
	at := make(map[origin]*token.Position)
	add := func(key, text string, n ast.Node) {
		if o := (origin{key, text}); at[o] == nil {
			at[o] = n.GetToken().Position
		}
	}
	for _, top := range pairs(body) {
		key := top.Key.GetToken().Value
		switch key {
		case "secrets":
			for _, s := range pairs(top.Value) {
				name := s.Key.GetToken().Value
				add(key, name, s.Key)
				add("secret", f.Secrets[name].flag(name), s.Key)
				for _, rule := range pairs(s.Value) {
					key := rule.Key.GetToken().Value
					add(key, name, rule.Key) // of those that are true or false
					for _, n := range items(rule.Value) {
						with := "="
						if key == "hosts" || key == "allow-plain" || key == "allow-unverified" {
							with = "@"
						}
						add(key, name+with+textOf(n), n)
					}
				}
			}
		case "env":
			for _, v := range pairs(top.Value) {
				name := v.Key.GetToken().Value
				add(key, variable(name, f.Env[name]), v.Key)
			}
		default:
			for _, n := range items(top.Value) {
				add(key, textOf(n), n)
			}
		}
	}
	return at
}

// items are the texts of a list, or one alone.
func items(n ast.Node) []ast.Node {
	if seq, ok := n.(*ast.SequenceNode); ok {
		return seq.Values
	}
	return []ast.Node{n}
}

// textOf is a scalar as a [File] has it.
func textOf(n ast.Node) string {
	if s, err := scalar(n); err == nil {
		return s
	}
	return n.GetToken().Value
}
