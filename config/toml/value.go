package toml

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// value reads what stands right of '=' or in an array.
func (p *parser) value() *Value {
	v := &Value{Position: p.here()}
	if p.depth++; p.depth > MaxDepth {
		p.fail("nested more than " + strconv.Itoa(MaxDepth) + " deep")
	}
	switch p.peek() {
	case '"', '\'':
		v.Text = p.quoted(true)
	case '[':
		p.array(v)
	case '{':
		p.inline(v)
	default:
		p.scalar(v)
	}
	p.depth--
	return v
}

func (p *parser) array(v *Value) {
	v.Kind = Array
	around := len(p.path)
	for p.pos++; ; {
		p.space()
		if p.accept(']') {
			return
		}
		p.path = append(p.path, part{inList: true, index: len(v.List)})
		v.List = append(v.List, p.value())
		p.path = p.path[:around]
		if p.last(']') {
			return
		}
	}
}

func (p *parser) inline(v *Value) {
	v.Kind = Table
	for p.pos++; ; {
		p.space()
		if p.accept('}') {
			return
		}
		p.member(v)
		if p.last('}') {
			return
		}
	}
}

// last takes the comma after an element, or the end of its list.
func (p *parser) last(end byte) bool {
	p.space()
	if p.accept(',') {
		return false
	}
	if !p.accept(end) {
		p.expected("',' or '" + string(rune(end)) + "'")
	}
	return true
}

// quoted reads a string of any of the four kinds; the long ones only if long ("String").
func (p *parser) quoted(long bool) string {
	at := p.here()
	quote := p.peek()
	if long = long && p.quotes(quote) >= 3; long {
		p.pos += 3
		p.newline() // one right after the opening does not count
	} else {
		p.pos++
	}
	var b []byte
	for p.pos < len(p.text) {
		start := p.pos
		switch c := p.text[p.pos]; {
		case c == quote && !long:
			p.pos++
			return string(b)
		case c == quote:
			n := p.quotes(quote)
			if p.pos += n; n >= 3 {
				return p.closed(b, quote, n)
			}
		case c == '\\' && quote == '"':
			b = p.escape(b, long)
			start = p.pos
		case c != '\n' && c != '\r':
			p.pos++
		case !long:
			p.failAt(at, "a string that is not closed on its line")
		default:
			p.newline()
		}
		b = append(b, p.text[start:p.pos]...)
	}
	p.failAt(at, "a string that is not closed")
	return ""
}

// quotes counts the quotes from here on.
func (p *parser) quotes(quote byte) int {
	n := 0
	for p.pos+n < len(p.text) && p.text[p.pos+n] == quote {
		n++
	}
	return n
}

// closed ends a long string at n quotes: the last three close it, up to two before them belong to it.
func (p *parser) closed(b []byte, quote byte, n int) string {
	if n > 5 {
		p.fail("too many quotes in a row")
	}
	for ; n > 3; n-- {
		b = append(b, quote)
	}
	return string(b)
}

const escapes, escaped = `btnfre"\`, "\b\t\n\f\r\x1b\"\\"

// escape reads what follows a backslash and appends what it stands for.
func (p *parser) escape(b []byte, long bool) []byte {
	at := p.here()
	p.pos++
	c := p.peek()
	if i := strings.IndexByte(escapes, c); i >= 0 {
		p.pos++
		return append(b, escaped[i])
	}
	switch c {
	case 'x':
		return p.hex(b, 2)
	case 'u':
		return p.hex(b, 4)
	case 'U':
		return p.hex(b, 8)
	}
	// A backslash at the end of a line swallows all white space up to the next character.
	p.blank()
	if !long || !p.newline() {
		p.failAt(at, "no such escape; write a backslash twice, or the string in single quotes")
		return b
	}
	for p.blank(); p.newline(); {
		p.blank()
	}
	return b
}

// hex appends the character whose number is written in n digits after an x, u or U.
func (p *parser) hex(b []byte, n int) []byte {
	digits := p.text[p.pos+1:]
	digits = digits[:min(n, len(digits))]
	r, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || len(digits) < n || !utf8.ValidRune(rune(r)) {
		p.fail("an escape that is no character: \\" + p.text[p.pos:p.pos+1] + " takes " + strconv.Itoa(n) + " hexadecimal digits")
		return b
	}
	p.pos += 1 + n
	return utf8.AppendRune(b, rune(r))
}

// scalar reads numbers, booleans and dates, which end at the first character that none of them has.
func (p *parser) scalar(v *Value) {
	start := p.pos
	p.word()
	// A date and its time may have one space between them ("Offset Date-Time").
	if p.pos-start == len("1979-05-27") && isTime(p.text[start:p.pos]) && p.peek() == ' ' &&
		p.pos+1 < len(p.text) && isDigit(p.text[p.pos+1]) {
		p.pos++
		p.word()
	}
	s := p.text[start:p.pos]
	v.Text = s
	base, digits := integer(s)
	switch {
	case s == "":
		p.expected("a value")
	case s == "true" || s == "false":
		v.Kind = Boolean
		v.Int = int64(len("false") - len(s))
	case base != 0:
		var err error
		if v.Int, err = strconv.ParseInt(strings.ReplaceAll(digits, "_", ""), base, 64); err != nil {
			p.failAt(v.Position, s+" does not fit in 64 bits")
		}
		v.Kind = Integer
	case isFloat(s):
		v.Kind = Float
	case isTime(s):
		v.Kind = Time
	default:
		p.failAt(v.Position, strconv.Quote(s)+" is not a value; a string needs quotes")
	}
}

func (p *parser) word() {
	for c := p.peek(); isAlnum(c) || c != 0 && strings.IndexByte("_+-.:", c) >= 0; c = p.peek() {
		p.pos++
	}
}

// integer gives the base of an integer and what of it strconv is to read; base is 0 for anything else
// ("Integer").
func integer(s string) (base int, digits string) {
	if len(s) > 2 && s[0] == '0' {
		switch s[1] {
		case 'x':
			base = 16
		case 'o':
			base = 8
		case 'b':
			base = 2
		}
		if base != 0 && allDigits(s[2:], base) {
			return base, s[2:]
		}
		return 0, ""
	}
	if isDecimal(s) {
		return 10, s
	}
	return 0, ""
}

func isDecimal(s string) bool {
	s = unsigned(s)
	return allDigits(s, 10) && (s[0] != '0' || len(s) == 1)
}

func unsigned(s string) string {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		return s[1:]
	}
	return s
}

// allDigits is true for digits of a base with single underscores between them.
func allDigits(s string, base int) bool {
	before := false
	for i := range len(s) {
		digit := strings.IndexByte("0123456789abcdef"[:base], s[i]|0x20) >= 0
		if !digit && (s[i] != '_' || !before) {
			return false
		}
		before = digit
	}
	return before
}

// isFloat goes by the grammar, so that nothing that is none is called one ("Float").
func isFloat(s string) bool {
	if u := unsigned(s); u == "inf" || u == "nan" {
		return true
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if !allDigits(unsigned(s[i+1:]), 10) {
			return false
		}
		if s = s[:i]; isDecimal(s) {
			return true
		}
	}
	whole, fraction, _ := strings.Cut(s, ".")
	return isDecimal(whole) && allDigits(fraction, 10)
}

// isTime goes by how a date or a time begins. Nobody takes one, so what follows does not matter.
func isTime(s string) bool { return hasShape(s, "0000-00-00") || hasShape(s, "00:00") }

// hasShape is true if s begins like shape, in which 0 is any digit.
func hasShape(s, shape string) bool {
	if len(s) < len(shape) {
		return false
	}
	for i := range len(shape) {
		if s[i] != shape[i] && (shape[i] != '0' || !isDigit(s[i])) {
			return false
		}
	}
	return true
}
