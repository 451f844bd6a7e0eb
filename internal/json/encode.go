package json

import (
	"encoding"
	"encoding/base64"
	"io"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"rouse/internal/fmt"
)

// Marshal is encoding/json's.
func Marshal(v any) ([]byte, error) {
	return encode(nil, reflect.ValueOf(v), 0)
}

// Write writes v and a newline to w, indented by two spaces a level if indent.
func Write(w io.Writer, v any, indent bool) error {
	text, err := Marshal(v)
	if err != nil {
		return err
	}
	if indent {
		text = indented(text)
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

var (
	rawType  = reflect.TypeFor[RawMessage]()
	textType = reflect.TypeFor[encoding.TextMarshaler]()
)

func encode(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if !v.IsValid() || isNil(v) {
		return append(b, "null"...), nil
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("json: %s is nested deeper than %d levels", v.Type(), maxDepth)
	}
	if v.Type() == rawType {
		return appendRaw(b, v.Bytes())
	}
	if v.Type().Implements(textType) {
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		return appendString(b, string(text)), err
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case reflect.Float32, reflect.Float64:
		return appendFloat(b, v.Float(), v.Type().Bits())
	case reflect.String:
		return appendString(b, v.String()), nil
	case reflect.Pointer, reflect.Interface:
		return encode(b, v.Elem(), depth+1)
	case reflect.Struct:
		return encodeStruct(b, v, depth)
	case reflect.Map:
		return encodeMap(b, v, depth)
	case reflect.Slice, reflect.Array:
		return encodeList(b, v, depth)
	}
	return nil, fmt.Errorf("json: a %s cannot be written", v.Type())
}

func isNil(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		return v.IsNil()
	}
	return false
}

// appendRaw puts a value in without its white space: a newline in it would end a line of the protocol.
func appendRaw(b, raw []byte) ([]byte, error) {
	s := scanner{text: raw}
	if err := s.whole(); err != nil {
		return nil, err
	}
	return compact(b, raw), nil
}

// compact drops white space outside of strings from text that was checked.
func compact(b, text []byte) []byte {
	inside := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inside && c == '\\':
			b = append(b, c)
			i++
			c = text[i]
		case c == '"':
			inside = !inside
		case !inside && isSpace(c):
			continue
		}
		b = append(b, c)
	}
	return b
}

// indented lays compact text out.
func indented(text []byte) []byte {
	var b []byte
	inside, level := false, 0
	line := func() { b = append(append(b, '\n'), strings.Repeat("  ", level)...) }
	for i := 0; i < len(text); i++ {
		c := text[i]
		if inside {
			b = append(b, c)
			if c == '\\' {
				i++
				b = append(b, text[i])
			}
			inside = c != '"'
			continue
		}
		switch c {
		case '{', '[':
			b = append(b, c)
			if text[i+1] == c+2 { // the closing bracket stands two places behind the opening one in ASCII
				i++
				b = append(b, c+2)
				continue
			}
			level++
			line()
		case '}', ']':
			level--
			line()
			b = append(b, c)
		case ',':
			b = append(b, c)
			line()
		case ':':
			b = append(b, ':', ' ')
		default:
			inside = c == '"'
			b = append(b, c)
		}
	}
	return b
}

// appendFloat writes a number as ECMAScript does, as encoding/json has it.
func appendFloat(b []byte, f float64, bits int) ([]byte, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, fmt.Errorf("json: %v is no JSON number", f)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (bits == 64 && (a < 1e-6 || a >= 1e21) || bits == 32 && (float32(a) < 1e-6 || float32(a) >= 1e21)) {
		format = 'e'
	}
	b = strconv.AppendFloat(b, f, format, -1, bits)
	if n := len(b); format == 'e' && n >= 4 && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' {
		b = append(b[:n-2], b[n-1]) // e-09 is e-9
	}
	return b, nil
}

const hexDigits = "0123456789abcdef"

// appendString escapes as encoding/json does: what HTML and JavaScript would take for their own, too.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, `\ufffd`...)
			case r == '\u2028' || r == '\u2029':
				b = append(append(b, `\u202`...), hexDigits[r&15])
			default:
				b = append(b, s[i:i+n]...)
			}
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ' && c != '<' && c != '>' && c != '&':
			b = append(b, c)
		default:
			if j := strings.IndexByte("\b\f\n\r\t", c); j >= 0 {
				b = append(b, '\\', "bfnrt"[j])
			} else {
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		i++
	}
	return append(b, '"')
}

// fieldName is a field's name in the text, "" if it has none.
func fieldName(f reflect.StructField) (name, options string) {
	if !f.IsExported() {
		return "", ""
	}
	tag := f.Tag.Get("json")
	if tag == "-" {
		return "", ""
	}
	name, options, _ = strings.Cut(tag, ",")
	if name == "" {
		name = f.Name
	}
	return name, options
}

func encodeStruct(b []byte, v reflect.Value, depth int) (_ []byte, err error) {
	b = append(b, '{')
	first := true
	for i := range v.NumField() {
		name, options := fieldName(v.Type().Field(i))
		f := v.Field(i)
		if name == "" || strings.Contains(options, "omitempty") && isEmpty(f) || strings.Contains(options, "omitzero") && isZero(f) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, name), ':')
		if b, err = encode(b, f, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// isEmpty is what omitempty leaves out.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// isZero is what omitzero leaves out: a type may say itself, as time.Time does.
func isZero(v reflect.Value) bool {
	if z, ok := v.Interface().(interface{ IsZero() bool }); ok && !isNil(v) {
		return z.IsZero()
	}
	return v.IsZero()
}

func encodeMap(b []byte, v reflect.Value, depth int) (_ []byte, err error) {
	if v.Type().Key().Kind() != reflect.String {
		return nil, fmt.Errorf("json: a %s cannot be written: its keys are no strings", v.Type())
	}
	keys := make([]string, 0, v.Len())
	for _, k := range v.MapKeys() {
		keys = append(keys, k.String())
	}
	sort.Strings(keys)
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		if b, err = encode(b, v.MapIndex(mapKey(v, k)), depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func encodeList(b []byte, v reflect.Value, depth int) (_ []byte, err error) {
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"'), nil
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = encode(b, v.Index(i), depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}
