package json

import (
	"encoding/base64"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"rouse/internal/fmt"
)

// Unmarshal is encoding/json's: keys that v does not know are left out.
func Unmarshal(text []byte, v any) error { return unmarshal(text, v, false) }

// UnmarshalStrict refuses keys that v does not know.
func UnmarshalStrict(text []byte, v any) error { return unmarshal(text, v, true) }

func unmarshal(text []byte, v any, strict bool) error {
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return fmt.Errorf("json: cannot read into a %T", v)
	}
	s := scanner{text: text}
	if err := s.whole(); err != nil { // the whole text first: nothing is set from half a text
		return err
	}
	d := decoder{scanner: scanner{text: text}, strict: strict}
	d.space()
	return d.value(target.Elem())
}

// decoder reads text that was checked into Go values.
type decoder struct {
	scanner
	strict bool
}

func (d *decoder) value(v reflect.Value) error {
	start := d.at
	if v.Type() == rawType {
		_ = d.skip(0) // checked before
		v.SetBytes(append([]byte(nil), d.text[start:d.at]...))
		return nil
	}
	if d.text[d.at] == 'n' {
		d.at += len("null")
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
			v.SetZero()
		}
		return nil
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(v.Elem())
	}
	if v.Kind() == reflect.Interface && v.NumMethod() == 0 {
		x, err := d.any()
		if err == nil {
			v.Set(reflect.ValueOf(x))
		}
		return err
	}
	switch d.text[d.at] {
	case '{':
		return d.object(v)
	case '[':
		return d.list(v)
	case '"':
		return d.string(v)
	}
	_ = d.skip(0)
	return scalar(v, string(d.text[start:d.at]))
}

func wrong(text string, v reflect.Value) error {
	want := "a number (" + v.Type().String() + ")"
	switch v.Kind() {
	case reflect.Struct, reflect.Map:
		want = "an object"
	case reflect.Slice:
		want = "a list"
	case reflect.String:
		want = "a string"
	case reflect.Bool:
		want = "true or false"
	}
	return fmt.Errorf("json: %s where %s should be", text, want)
}

// scalar sets a bool or a number.
func scalar(v reflect.Value, text string) error {
	switch v.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return wrong(text, v)
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return wrong(text, v)
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return wrong(text, v)
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil {
			return wrong(text, v)
		}
		v.SetFloat(f)
	default:
		return wrong(text, v)
	}
	return nil
}

func (d *decoder) string(v reflect.Value) error {
	s := d.unquote()
	switch {
	case v.Type() == addrType || v.Type() == prefixType:
		return network(v, s)
	case v.Kind() == reflect.String:
		v.SetString(s)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return fmt.Errorf("json: %w", err)
		}
		v.SetBytes(b)
	default:
		return wrong(strconv.Quote(s), v)
	}
	return nil
}

var (
	addrType   = reflect.TypeFor[netip.Addr]()
	prefixType = reflect.TypeFor[netip.Prefix]()
)

// network reads the types of package netip. A call of encoding.TextUnmarshaler's method would do for them, and bring
// in that of time.Time with all of time.Parse: 20 KB of machine code that no text of the guest needs.
func network(v reflect.Value, s string) (err error) {
	switch p := v.Addr().Interface().(type) {
	case *netip.Addr:
		if *p = (netip.Addr{}); s != "" {
			*p, err = netip.ParseAddr(s)
		}
	case *netip.Prefix:
		if *p = (netip.Prefix{}); s != "" {
			*p, err = netip.ParsePrefix(s)
		}
	}
	return err
}

func (d *decoder) list(v reflect.Value) error {
	if v.Kind() != reflect.Slice {
		return wrong("a list", v)
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 4))
	return d.elements(']', func() error {
		x := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(x); err != nil {
			return err
		}
		v.Set(reflect.Append(v, x))
		return nil
	})
}

func (d *decoder) object(v reflect.Value) error {
	isMap := v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String
	if v.Kind() != reflect.Struct && !isMap {
		return wrong("an object", v)
	}
	if isMap && v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	return d.elements('}', func() error {
		key := d.unquote()
		d.space()
		d.at++ // the colon
		d.space()
		if isMap {
			x := reflect.New(v.Type().Elem()).Elem()
			if err := d.value(x); err != nil {
				return err
			}
			v.SetMapIndex(mapKey(v, key), x)
			return nil
		}
		f, ok := field(v, key)
		if ok {
			return d.value(f)
		}
		if d.strict {
			return fmt.Errorf("json: unknown field %q", key)
		}
		return d.skip(0)
	})
}

// mapKey is a key of the map's own type. (Value.Convert would bring in ten kilobytes of conversions.)
func mapKey(m reflect.Value, key string) reflect.Value {
	k := reflect.New(m.Type().Key()).Elem()
	k.SetString(key)
	return k
}

// field finds a field by its name, or by its name in other letters.
func field(v reflect.Value, key string) (reflect.Value, bool) {
	fold := -1
	for i := range v.NumField() {
		name, _ := fieldName(v.Type().Field(i))
		if name == "" {
			continue
		}
		if name == key {
			return v.Field(i), true
		}
		if fold < 0 && strings.EqualFold(name, key) {
			fold = i
		}
	}
	if fold < 0 {
		return reflect.Value{}, false
	}
	return v.Field(fold), true
}

// any reads a value into the types that encoding/json chooses.
func (d *decoder) any() (any, error) {
	switch d.text[d.at] {
	case '{':
		m := map[string]any{}
		return m, d.object(reflect.ValueOf(&m).Elem())
	case '[':
		var l []any
		err := d.list(reflect.ValueOf(&l).Elem())
		return l, err
	case '"':
		return d.unquote(), nil
	case 't', 'f':
		var b bool
		return b, d.value(reflect.ValueOf(&b).Elem())
	}
	var f float64
	err := d.value(reflect.ValueOf(&f).Elem())
	return f, err
}

// elements goes through a list or an object that was checked, from its opening to its closing bracket.
func (d *decoder) elements(closing byte, each func() error) error {
	d.at++
	for {
		d.space()
		if d.text[d.at] == closing {
			d.at++
			return nil
		}
		if d.text[d.at] == ',' {
			d.at++
			d.space()
		}
		if err := each(); err != nil {
			return err
		}
	}
}

// unquote reads a string that was checked.
func (d *decoder) unquote() string {
	d.at++
	var b []byte
	for {
		c := d.text[d.at]
		switch {
		case c == '"':
			d.at++
			return string(b)
		case c == '\\':
			b = d.escape(b)
		case c < utf8.RuneSelf:
			b = append(b, c)
			d.at++
		default:
			r, n := utf8.DecodeRune(d.text[d.at:])
			b = utf8.AppendRune(b, r)
			d.at += n
		}
	}
}

func (d *decoder) escape(b []byte) []byte {
	c := d.text[d.at+1]
	d.at += 2
	if c != 'u' {
		if i := strings.IndexByte("bfnrt", c); i >= 0 {
			c = "\b\f\n\r\t"[i]
		}
		return append(b, c)
	}
	r := d.hex()
	if utf16.IsSurrogate(r) {
		low := rune(utf8.RuneError)
		mark := d.at
		if d.text[d.at] == '\\' && d.text[d.at+1] == 'u' {
			d.at += 2
			low = d.hex()
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			d.at = mark // what followed was no second half
		}
	}
	return utf8.AppendRune(b, r)
}

// hex reads the four digits of an escape that was checked.
func (d *decoder) hex() rune {
	n, _ := strconv.ParseUint(string(d.text[d.at:d.at+4]), 16, 32)
	d.at += 4
	return rune(n)
}
