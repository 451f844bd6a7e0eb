package fmt

import (
	"reflect"
	"strconv"
	"unicode/utf8"
)

// printer formats one text. The operands are not in it: the compiler could not see then that they do not
// outlive the call, and every call would allocate its list.
type printer struct {
	out     []byte
	next    int // operand
	wrapped []error

	minus, zero, sharp, space, plus bool
	width, precision                int // precision is -1 where there is none
}

func (p *printer) format(format string, args []any) {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			p.out = append(p.out, format[i])
			continue
		}
		i = p.flags(format, i+1, args)
		if i >= len(format) {
			p.out = append(p.out, "%!(NOVERB)"...)
			return
		}
		p.verb(format[i], args)
	}
	if p.next < len(args) {
		p.out = append(p.out, "%!(EXTRA)"...)
	}
}

// flags reads what stands between '%' and the verb, and returns where the verb is.
func (p *printer) flags(format string, i int, args []any) int {
	p.minus, p.zero, p.sharp, p.space, p.plus = false, false, false, false, false
	for ; i < len(format); i++ {
		switch format[i] {
		case '-':
			p.minus = true
		case '0':
			p.zero = true
		case '#':
			p.sharp = true
		case ' ':
			p.space = true
		case '+':
			p.plus = true
		default:
			p.width, i = p.number(format, i, args)
			p.precision = -1
			if i < len(format) && format[i] == '.' {
				p.precision, i = p.number(format, i+1, args)
			}
			p.zero = p.zero && !p.minus
			return i
		}
	}
	return i
}

// number is a width or precision: digits, or an operand for '*'.
func (p *printer) number(format string, i int, args []any) (n, end int) {
	if i < len(format) && format[i] == '*' {
		if p.next < len(args) {
			n, _ = args[p.next].(int)
			p.next++
		}
		return n, i + 1
	}
	for ; i < len(format) && format[i] >= '0' && format[i] <= '9' && n < 1000; i++ {
		n = n*10 + int(format[i]-'0')
	}
	return n, i
}

func (p *printer) verb(verb byte, args []any) {
	if verb == '%' {
		p.out = append(p.out, '%')
		return
	}
	if p.next >= len(args) {
		p.out = append(append(append(p.out, "%!"...), verb), "(MISSING)"...)
		return
	}
	a := args[p.next]
	p.next++
	if verb == 'T' {
		p.pad(typeName(a), false)
		return
	}
	if verb == 'w' {
		if err, ok := a.(error); ok {
			p.wrapped = append(p.wrapped, err)
		}
		verb = 'v'
	}
	p.value(a, verb)
}

func typeName(a any) string {
	if a == nil {
		return "<nil>"
	}
	return reflect.TypeOf(a).String()
}

// value prints one operand.
func (p *printer) value(a any, verb byte) {
	if verb == 'v' || verb == 's' || verb == 'q' || verb == 'x' || verb == 'X' {
		if text, ok := own(a); ok {
			p.text(text, verb)
			return
		}
	}
	if b, ok := a.([]byte); ok && verb != 'v' && verb != 'd' {
		p.text(string(b), verb)
		return
	}
	p.kind(a, reflect.ValueOf(a), verb)
}

// own is the text that an operand has of itself.
func own(a any) (text string, ok bool) {
	defer func() {
		if r := recover(); r != nil {
			if v := reflect.ValueOf(a); v.Kind() != reflect.Pointer || !v.IsNil() {
				panic(r)
			}
			text, ok = nilText('v'), true
		}
	}()
	switch a := a.(type) {
	case string:
		return a, true
	case error:
		return a.Error(), true
	case Stringer:
		return a.String(), true
	}
	return "", false
}

// kind prints what has no text of its own.
func (p *printer) kind(a any, v reflect.Value, verb byte) {
	switch k := v.Kind(); {
	case k == reflect.String:
		p.text(v.String(), verb)
	case k == reflect.Bool:
		p.pad(strconv.FormatBool(v.Bool()), false)
	case k >= reflect.Int && k <= reflect.Int64:
		n := v.Int()
		if n < 0 {
			p.integer(uint64(-n), "-", verb)
		} else {
			p.integer(uint64(n), "", verb)
		}
	case k >= reflect.Uint && k <= reflect.Uintptr:
		p.integer(v.Uint(), "", verb)
	case k == reflect.Float32 || k == reflect.Float64:
		p.float(v.Float(), k, verb)
	case k == reflect.Slice || k == reflect.Array:
		p.list(v, verb)
	case k == reflect.Invalid:
		p.pad(nilText(verb), false)
	default:
		p.out = append(append(append(p.out, '('), typeName(a)...), ')')
	}
}

func nilText(verb byte) string {
	if verb == 'v' {
		return "<nil>"
	}
	return "%!" + string(rune(verb)) + "(<nil>)"
}

func (p *printer) list(v reflect.Value, verb byte) {
	p.out = append(p.out, '[')
	for i := range v.Len() {
		if i > 0 {
			p.out = append(p.out, ' ')
		}
		p.value(v.Index(i).Interface(), verb)
	}
	p.out = append(p.out, ']')
}

// text prints a string; precision cuts it, in characters.
func (p *printer) text(s string, verb byte) {
	if p.precision >= 0 && (verb == 's' || verb == 'v' || verb == 'q') {
		n := p.precision
		for i := range s {
			if n--; n < 0 {
				s = s[:i]
				break
			}
		}
	}
	switch verb {
	case 'q':
		s = strconv.Quote(s)
	case 'x', 'X':
		s = p.hex(s, verb)
	}
	p.pad(s, false)
}

func (p *printer) hex(s string, verb byte) string {
	digits := "0123456789abcdefx"
	if verb == 'X' {
		digits = "0123456789ABCDEFX"
	}
	var b []byte
	for i := range len(s) {
		if p.space && i > 0 {
			b = append(b, ' ')
		}
		if p.sharp && (p.space || i == 0) {
			b = append(b, '0', digits[16])
		}
		b = append(b, digits[s[i]>>4], digits[s[i]&15])
	}
	return string(b)
}

func (p *printer) integer(n uint64, sign string, verb byte) {
	base, prefix := 10, ""
	switch verb {
	case 'x', 'X':
		base = 16
		if p.sharp {
			prefix = "0" + string(rune(verb))
		}
	case 'o':
		base = 8
	case 'c':
		p.pad(string(rune(n)), false)
		return
	case 'q':
		p.pad(strconv.QuoteRune(rune(n)), false)
		return
	}
	if sign == "" && p.plus {
		sign = "+"
	} else if sign == "" && p.space {
		sign = " "
	}
	digits := strconv.FormatUint(n, base)
	if verb == 'X' {
		digits = upper(digits)
	}
	// The zeros that fill a width count sign but not prefix, as the standard library has it.
	for p.zero && len(digits)+len(sign) < p.width {
		digits = "0" + digits
	}
	p.pad(sign+prefix+digits, true)
}

func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

func (p *printer) float(f float64, k reflect.Kind, verb byte) {
	bits, precision := 64, p.precision
	if k == reflect.Float32 {
		bits = 32
	}
	if verb == 'v' {
		verb = 'g'
	} else if precision < 0 {
		precision = 6
	}
	text, sign := strconv.FormatFloat(f, verb, precision, bits), ""
	if text[0] == '-' {
		text, sign = text[1:], "-"
	}
	for p.zero && len(sign)+len(text) < p.width {
		text = "0" + text
	}
	p.pad(sign+text, true)
}

// pad appends s, filled with spaces to the width in characters. What is a number has its zeros already.
func (p *printer) pad(s string, number bool) {
	fill := byte(' ')
	if p.zero && !number {
		fill = '0'
	}
	missing := p.width - utf8.RuneCountInString(s)
	if p.minus {
		p.out = append(p.out, s...)
	}
	for ; missing > 0; missing-- {
		p.out = append(p.out, fill)
	}
	if !p.minus {
		p.out = append(p.out, s...)
	}
}
