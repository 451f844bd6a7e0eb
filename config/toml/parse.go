package toml

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// parser reads one text. With err set, pos is at the end.
type parser struct {
	file      string
	text      string
	pos       int
	line, bol int  // number and first byte of the line that pos is in
	depth     int  // arrays and inline tables around pos
	path      path // the key around pos, for errors
	err       *Error
}

// ParseFile reads the text of a file, whose name every position then has. The error is an *Error.
func ParseFile(file string, text []byte) (*Value, error) {
	root := &Value{Kind: Table, made: header, Position: Position{1, 1, file}}
	p := &parser{file: file, text: strings.TrimPrefix(string(text), "\ufeff"), line: 1}
	if len(text) > MaxSize {
		p.fail("longer than " + strconv.Itoa(MaxSize) + " bytes")
	}
	p.characters()
	for table := root; p.pos < len(p.text); {
		table = p.statement(root, table)
	}
	if p.err != nil {
		return nil, p.err
	}
	return root, nil
}

// fail keeps the first error and ends the reading.
func (p *parser) fail(problem string) { p.failAt(p.here(), problem) }

func (p *parser) failAt(at Position, problem string) {
	if p.err == nil {
		p.err = &Error{Position: at, Key: p.path.String(), Problem: problem}
	}
	p.pos = len(p.text)
}

func (p *parser) here() Position { return Position{p.line, p.pos - p.bol + 1, p.file} }

// expected fails with what stands here instead.
func (p *parser) expected(what string) {
	found := "the end of the text"
	if p.pos < len(p.text) {
		r, _ := utf8.DecodeRuneInString(p.text[p.pos:])
		if found = strconv.QuoteRune(r); r == '\n' || r == '\r' {
			found = "the end of the line"
		}
	}
	p.fail("expected " + what + ", found " + found)
}

// characters refuses what may stand nowhere in a text, comments and strings included: broken UTF-8 and
// control characters but tab and the two ways to end a line ("Spec", "Comment", "String"). Nothing
// after it sees a zero byte, or a carriage return without its line feed.
func (p *parser) characters() {
	for i, r := range p.text {
		size := 1
		if r == utf8.RuneError {
			_, size = utf8.DecodeRuneInString(p.text[i:])
		}
		switch {
		case r == '\n':
			p.line, p.bol = p.line+1, i+1
		case r == utf8.RuneError && size == 1,
			r < ' ' && r != '\t' && (r != '\r' || !strings.HasPrefix(p.text[i:], "\r\n")), r == 0x7f:
			p.pos = i
			p.fail("this character is not allowed in TOML: " + strconv.QuoteRuneToASCII(r))
			return
		}
	}
	p.line, p.bol = 1, 0
}

// peek is the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

func (p *parser) accept(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.pos++
	return true
}

// blank skips spaces and tabs.
func (p *parser) blank() {
	for p.peek() == ' ' || p.peek() == '\t' {
		p.pos++
	}
}

// newline takes one end of line.
func (p *parser) newline() bool {
	if p.peek() == '\r' {
		p.pos++
	}
	if !p.accept('\n') {
		return false
	}
	p.line, p.bol = p.line+1, p.pos
	return true
}

// rest takes blanks, a comment and the end of the line, and says if there was one.
func (p *parser) rest() bool {
	p.blank()
	if p.peek() == '#' {
		if n := strings.IndexByte(p.text[p.pos:], '\n'); n >= 0 {
			p.pos += n
		} else {
			p.pos = len(p.text)
		}
	}
	return p.newline()
}

// space skips all that may stand between the elements of an array.
func (p *parser) space() {
	for p.rest() {
	}
}

// statement reads a line, and gives the table that the keys after it go to.
func (p *parser) statement(root, table *Value) *Value {
	p.space()
	switch p.peek() {
	case 0:
		return table
	case '[':
		table = p.header(root)
	default:
		p.member(table)
	}
	if !p.rest() && p.pos < len(p.text) {
		p.expected("the end of the line")
	}
	return table
}

// header reads [a.b] or [[a.b]] ("Table", "Array of Tables").
func (p *parser) header(root *Value) *Value {
	p.pos++
	list := p.accept('[')
	p.path = p.path[:0]
	parts := p.key()
	if !p.accept(']') || list && !p.accept(']') {
		p.expected("']'")
	}
	table := root
	last := parts[len(parts)-1]
	for _, k := range parts[:len(parts)-1] {
		table = p.step(table, k, implicit)
	}
	p.path = append(p.path, last)
	if list {
		return p.element(table, last)
	}
	v := table.Get(last.name)
	if v == nil {
		return table.add(last, &Value{Kind: Table, made: header, Position: last.Position})
	}
	if v.Kind != Table || v.made != implicit {
		p.redefined(last)
	}
	v.made, v.Position = header, last.Position
	return v
}

// element adds the table of a [[header]] to its list.
func (p *parser) element(table *Value, k part) *Value {
	list := table.Get(k.name)
	if list == nil {
		list = table.add(k, &Value{Kind: Array, made: header, Position: k.Position})
	}
	if list.Kind != Array || list.made != header {
		p.redefined(k)
	}
	v := &Value{Kind: Table, made: header, Position: k.Position}
	p.path = append(p.path, part{inList: true, index: len(list.List)})
	list.List = append(list.List, v)
	return v
}

// step goes from a table to the one under a key that is not the last of its header (made is implicit)
// or of its dotted key (made is dotted), and makes it if need be. A header may pass through all that
// is not written inline, a dotted key only through what dotted keys have made: tables with a header of
// their own are not added to from outside.
func (p *parser) step(table *Value, k part, made origin) *Value {
	p.path = append(p.path, k)
	v := table.Get(k.name)
	switch {
	case v == nil:
		return table.add(k, &Value{Kind: Table, made: made, Position: k.Position})
	case v.made == inline || made == dotted && v.made != dotted:
		p.redefined(k)
	case v.Kind == Array:
		last := len(v.List) - 1
		p.path = append(p.path, part{inList: true, index: last})
		return v.List[last]
	}
	return v
}

func (p *parser) redefined(k part) {
	if p.err == nil {
		p.failAt(k.Position, "is there already, and cannot be added to here")
		p.err.Redefined = true
	}
}

// member reads key = value into a table.
func (p *parser) member(table *Value) {
	around := len(p.path)
	parts := p.key()
	last := parts[len(parts)-1]
	for _, k := range parts[:len(parts)-1] {
		table = p.step(table, k, dotted)
	}
	p.path = append(p.path, last)
	if table.Get(last.name) != nil {
		p.redefined(last)
	}
	if !p.accept('=') {
		p.expected("'=' after the key")
	}
	p.blank()
	table.add(last, p.value())
	p.path = p.path[:around]
}

// key reads a bare, quoted or dotted key and the blanks around it. It has one part at least.
func (p *parser) key() path {
	var k path
	for {
		p.blank()
		at := p.here()
		k = append(k, part{Position: at, name: p.name()})
		p.blank()
		if len(k) > MaxDepth {
			p.failAt(at, "a key of more than "+strconv.Itoa(MaxDepth)+" parts")
		}
		if !p.accept('.') {
			return k
		}
	}
}

func (p *parser) name() string {
	if c := p.peek(); c == '"' || c == '\'' {
		return p.quoted(false)
	}
	n := bareLen(p.text[p.pos:])
	name := p.text[p.pos : p.pos+n]
	if n == 0 {
		p.expected("a key")
	}
	p.pos += n
	return name
}

// bareLen is how much of the beginning of s may stand in a key without quotes.
func bareLen(s string) int {
	for i := range len(s) {
		if c := s[i]; c != '-' && c != '_' && !isAlnum(c) {
			return i
		}
	}
	return len(s)
}

func isAlnum(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
