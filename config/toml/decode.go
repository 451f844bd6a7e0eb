package toml

import (
	"net/netip"
	"reflect"

	"rouse/internal/fmt"
)

// decoder puts a tree into Go values and gathers what does not fit.
type decoder struct {
	path path
	errs []*Error
}

// Decode puts v into what the pointer points at: strings, integers of every size, booleans, slices,
// structs, addresses and prefixes of net/netip, whatever is a TextSetter, and these in each other. A struct's fields are found by
// their `toml:"name"` tag, letter by letter; a field whose key is not in the text keeps what it has. It
// gives all errors in the order of the text's tables; an unknown key's members are not listed too.
func (v *Value) Decode(into any) []*Error {
	var d decoder
	d.value(v, reflect.ValueOf(into).Elem())
	return d.errs
}

// TextSetter is a type with a form of its own. It gets a string's content, or a number as it is written.
// It is not encoding.TextUnmarshaler, whose mere use would keep the parsers of time.Time in the program.
type TextSetter interface{ SetText(text string) error }

func (d *decoder) fail(at Position, problem string) *Error {
	e := &Error{Position: at, Key: d.path.String(), Problem: problem}
	d.errs = append(d.errs, e)
	return e
}

// is says if a value has the kind that its place wants, and complains if not.
func (d *decoder) is(v *Value, want Kind) bool {
	switch {
	case v.Kind == want:
		return true
	case v.Kind == Float || v.Kind == Time:
		d.fail(v.Position, v.Kind.String()+" is of no use here, "+want.String()+" belongs here")
	default:
		d.fail(v.Position, v.Kind.String()+" where "+want.String()+" belongs")
	}
	return false
}

func (d *decoder) value(v *Value, to reflect.Value) {
	switch p := to.Addr().Interface().(type) {
	case TextSetter:
		d.text(v, p.SetText)
		return
	case *netip.Addr:
		d.text(v, func(s string) (err error) { *p, err = netip.ParseAddr(s); return err })
		return
	case *netip.Prefix:
		d.text(v, func(s string) (err error) { *p, err = netip.ParsePrefix(s); return err })
		return
	}
	switch k := to.Kind(); {
	case k == reflect.String:
		if d.is(v, String) {
			to.SetString(v.Text)
		}
	case k == reflect.Bool:
		if d.is(v, Boolean) {
			to.SetBool(v.Int != 0)
		}
	case k >= reflect.Int && k <= reflect.Uint64:
		d.integer(v, to)
	case k == reflect.Slice:
		d.slice(v, to)
	case k == reflect.Struct:
		d.table(v, to)
	default:
		d.fail(v.Position, "rouse cannot read a "+k.String())
	}
}

// text gives numbers to the type's own reader too: it may take them, and if not it knows best what to
// write instead (a duration of 10 lacks its unit).
func (d *decoder) text(v *Value, set func(string) error) {
	if v.Kind != Integer && v.Kind != Float && v.Kind != String {
		d.is(v, String)
	} else if err := set(v.Text); err != nil {
		d.fail(v.Position, err.Error())
	}
}

func (d *decoder) integer(v *Value, to reflect.Value) {
	if !d.is(v, Integer) {
		return
	}
	if k := to.Kind(); k <= reflect.Int64 {
		if !to.OverflowInt(v.Int) {
			to.SetInt(v.Int)
			return
		}
	} else if v.Int >= 0 && !to.OverflowUint(uint64(v.Int)) {
		to.SetUint(uint64(v.Int))
		return
	}
	d.fail(v.Position, fmt.Sprintf("%s is out of range for %s", v.Text, to.Kind()))
}

func (d *decoder) slice(v *Value, to reflect.Value) {
	if v.Kind == Table && to.Type().Elem().Kind() == reflect.Struct {
		d.fail(v.Position, "a table where a list of tables belongs: write its header in double brackets")
		return
	}
	if !d.is(v, Array) {
		return
	}
	to.Set(reflect.MakeSlice(to.Type(), len(v.List), len(v.List)))
	around := len(d.path)
	for i, element := range v.List {
		d.path = append(d.path, part{inList: true, index: i})
		d.value(element, to.Index(i))
		d.path = d.path[:around]
	}
}

func (d *decoder) table(v *Value, to reflect.Value) {
	if !d.is(v, Table) {
		return
	}
	around := len(d.path)
	for _, m := range v.Members {
		d.path = append(d.path, part{name: m.Name})
		if f := field(to, m.Name); f.IsValid() {
			d.value(m.Value, f)
		} else {
			d.fail(m.Position, "no such key").Unknown = true
		}
		d.path = d.path[:around]
	}
}

// field is the struct's field of that tag, or the zero Value. Names are letter by letter, as in TOML.
func field(to reflect.Value, name string) reflect.Value {
	t := to.Type()
	for i := range t.NumField() {
		if f := t.Field(i); name != "" && f.IsExported() && f.Tag.Get("toml") == name {
			return to.Field(i)
		}
	}
	return reflect.Value{}
}
