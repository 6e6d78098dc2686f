package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxFile is far more than a person writes: a parser's tree takes a
	// hundred times as much.
	maxFile = 256 << 10
	// maxDepth is more than a File has.
	maxDepth = 8
)

// LoadFile reads a file of --conf and returns it with all that stands in it,
// for the search for values, and where. A file with a source that runs a
// command must be the caller's own.
func LoadFile(path string) (File, Text, Places, error) {
	whole, places := Text{Where: path}, Places{path: path}
	// A pipe without a writer would be waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return File{}, whole, places, hinted(fmt.Sprintf("read configuration: %v", err), "check the path")
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return File{}, whole, places, fmt.Errorf("read configuration: %w", err)
	case !info.Mode().IsRegular():
		return File{}, whole, places, fmt.Errorf("read configuration: %s is not a file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return File{}, whole, places, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxFile {
		line := 1 + bytes.Count(data[:maxFile], []byte("\n"))
		return File{}, whole, places, fmt.Errorf("%s:%d:1: the file is larger than %d KiB", path, line, maxFile>>10)
	}
	whole.Text = string(data)
	file, at, err := readFile(data)
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			e.Text = path + ":" + e.Text
		}
		return File{}, whole, places, err
	}
	places.at, places.own = at, ownFile(info)
	if file.runs() {
		err = places.Own("has a command run for a value")
	}
	return file, whole, places, err
}

// ownFile reports whether nobody but the caller and root can write the file.
func ownFile(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid() && info.Mode().Perm()&0o022 == 0
}

// readFile reads the text of a file, and where its texts stand. Its errors
// begin with line and column, and quote nothing of the text but the names of
// keys.
func readFile(data []byte) (File, map[origin]*token.Position, error) {
	var f File
	body, err := parseFile(data)
	if err != nil || body == nil {
		return f, nil, err
	}
	if err := yaml.NodeToValue(body, &f, yaml.Strict()); err != nil {
		return f, nil, explained(err)
	}
	if t := emptyKey(body); t != nil {
		return f, nil, at(t, "there is nothing behind it", "leave it out, or write what belongs there")
	}
	return f, placesOf(body, f), checkNames(body, f)
}

// parseFile returns the tree of a file's one document, nil if it has none.
func parseFile(data []byte) (ast.Node, error) {
	if !utf8.Valid(data) {
		return nil, at(nil, "it is not UTF-8", "")
	}
	tokens := lexer.Tokenize(string(data))
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	tree, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, explained(err)
	}
	var body ast.Node
	for _, doc := range tree.Docs {
		switch {
		case doc.Body == nil:
		case body != nil:
			return nil, at(doc.Body.GetToken(), "there is a second document", "write one")
		default:
			body = doc.Body
		}
	}
	return body, nil
}

// checkTokens refuses what a configuration does not need and a parser may
// choke on, before it is parsed.
func checkTokens(tokens token.Tokens) error {
	depth, line, entries := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, entries = t.Position.Line, 0
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return at(t, "anchors, aliases and merge keys are not understood", "write it out, or put it in quotes")
		case token.TagType, token.DirectiveType:
			return at(t, "tags and directives are not understood", "leave it out, or put it in quotes")
		case token.MappingKeyType:
			return at(t, "a key is a name", "write NAME: VALUE")
		case token.InvalidType:
			return at(t, "it is not YAML", "")
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			entries++
		}
		if depth > maxDepth || entries > maxDepth || t.Position.Column > maxColumn {
			return at(t, "it is nested too deeply", "")
		}
	}
	return nil
}

// maxColumn bounds the depth of what is nested by indentation.
const maxColumn = 4 << 10

// emptyKey returns a key of a file or a secret without anything behind it:
// the parser passes over it, and a rule would be missed. A secret or variable
// alone says something.
func emptyKey(body ast.Node) *token.Token {
	empty := func(n ast.Node) *token.Token {
		for _, p := range pairs(n) {
			if p.Value.Type() == ast.NullType {
				return p.Key.GetToken()
			}
		}
		return nil
	}
	if t := empty(body); t != nil {
		return t
	}
	for _, top := range pairs(body) {
		if top.Key.GetToken().Value != "secrets" {
			continue
		}
		for _, s := range pairs(top.Value) {
			if t := empty(s.Value); t != nil {
				return t
			}
		}
	}
	return nil
}

// checkNames refuses what would become another flag when it is written as
// one.
func checkNames(body ast.Node, f File) error {
	for name, s := range f.Secrets {
		key := keyNode(body, "secrets", name)
		switch {
		case !validName(name):
			return at(key, "a secret has the name of a variable", "write letters, digits and _")
		case s.Hosts == nil && strings.Contains(string(s.Source), "@"):
			return at(key, "its source holds an @, so its hosts must be named", "write hosts: [HOST]")
		case s.Hosts != nil && len(s.Hosts) == 0:
			return at(key, "it has no hosts", "write hosts: [HOST]")
		}
		for _, h := range s.Hosts {
			if strings.ContainsAny(h, "@=") {
				return at(key, "one of its hosts is no host", "write HOST or HOST:PORT")
			}
		}
	}
	for name := range f.Env {
		if strings.Contains(name, "=") || name == "" {
			return at(keyNode(body, "env", name), "a variable's name holds no =", "write NAME: VALUE")
		}
	}
	return nil
}

// keyNode returns the token of a key below another one, nil if it is not
// found.
func keyNode(body ast.Node, path ...string) *token.Token {
	var found *token.Token
	for _, name := range path {
		var next ast.Node
		for _, v := range pairs(body) {
			if v.Key.GetToken().Value == name {
				found, next = v.Key.GetToken(), v.Value
			}
		}
		body = next
	}
	return found
}

func pairs(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

// at is an error at the place of t.
func at(t *token.Token, text, hint string) error {
	line, column := 1, 1
	if t != nil && t.Position != nil {
		line, column = t.Position.Line, t.Position.Column
	}
	return hinted(fmt.Sprintf("%d:%d: %s", line, column, text), hint)
}

// keyShape is what a key looks like; what does not may be a value.
var keyShape = regexp.MustCompile(`^[a-z][a-z-]{0,30}$`)

// explained turns the parser's errors, which quote the text around, into ours.
func explained(err error) error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	where, ok := errors.AsType[yaml.Error](err)
	if !ok {
		return at(nil, "it is not a configuration", "cutout conf schema says what one looks like")
	}
	t := where.GetToken()
	switch e := where.(type) {
	case *yaml.UnknownFieldError:
		if t.Value == "value" {
			return at(t, "a configuration never holds a value", "name where it comes from: source: file:PATH")
		}
		text := "unknown key"
		if keyShape.MatchString(t.Value) {
			text += " " + t.Value
		}
		return at(t, text, didYouMean(t.Value, fileKeys())+"cutout conf schema lists the keys")
	case *yaml.SyntaxError:
		if strings.Contains(e.Message, "already defined") {
			return at(t, "a key is given twice", "give it once")
		}
		return at(t, "it is not well-formed YAML", "look at indentation and quotes")
	case *yaml.TypeError:
		return at(t, "it is not a "+kindWord(e.DstType), "cutout conf schema says what belongs here")
	}
	return at(t, "it does not belong here", "cutout conf schema says what does")
}

func kindWord(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "truth value: write true or false"
	case reflect.Struct, reflect.Map:
		return "group of keys"
	}
	return "text"
}

// A text is a scalar as it is written: 1.10 stays 1.10. true, false and null
// are refused, which are seldom meant.
type text string

func (t *text) UnmarshalYAML(n ast.Node) error {
	s, err := scalar(n)
	*t = text(s)
	return err
}

// A count is a whole number, from 1.
type count int

func (c *count) UnmarshalYAML(n ast.Node) error {
	if _, ok := n.(*ast.IntegerNode); ok {
		if i, err := strconv.Atoi(n.GetToken().Value); err == nil && i > 0 {
			*c = count(i)
			return nil
		}
	}
	return at(n.GetToken(), "it is not a number", "write 1, 2 and so on")
}

// A list is texts, or one alone.
type list []string

func (l *list) UnmarshalYAML(n ast.Node) error {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		s, err := scalar(n)
		*l = list{s}
		return err
	}
	*l = list{}
	for _, v := range seq.Values {
		s, err := scalar(v)
		if err != nil {
			return err
		}
		*l = append(*l, s)
	}
	return nil
}

func scalar(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, nil
	case *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		return "", at(n.GetToken(), "it is not a text", "put what is meant as one in quotes")
	}
	return "", at(n.GetToken(), "it is not a text", "cutout conf schema says what belongs here")
}
