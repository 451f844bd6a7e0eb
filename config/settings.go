package config

import (
	"net/netip"
	"reflect"
	"strconv"
	"time"
)

// Setting is one key of a configuration as it came out.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"` // as TOML writes it
	From  string `json:"from"`  // "FILE:LINE" or a source's name; "default"
}

// Settings are all keys that have a value or a place, in the order of the manual.
func (d Document) Settings() []Setting {
	l := lister{doc: d}
	l.table("", reflect.ValueOf(d.Config))
	return l.list
}

type lister struct {
	doc  Document
	list []Setting
}

func (l *lister) table(prefix string, v reflect.Value) {
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("toml"); name != "" {
			l.value(prefix+name, v.Field(i))
		}
	}
}

func (l *lister) value(key string, v reflect.Value) {
	text, plain := literal(v)
	switch {
	case plain:
		l.add(key, text, v.IsZero())
	case v.Kind() == reflect.Struct:
		l.table(key+".", v)
	case v.Kind() == reflect.Slice && tables(v.Type().Elem()):
		for i := range v.Len() {
			l.value(at(key, i), v.Index(i))
		}
	case v.Kind() == reflect.Slice:
		text := "["
		for i := range v.Len() {
			if i > 0 {
				text += ", "
			}
			element, _ := literal(v.Index(i))
			text += element
		}
		l.add(key, text+"]", v.Len() == 0)
	}
}

// tables says if a list's elements are tables of keys.
func tables(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.NumField() > 0 && t.Field(0).Tag.Get("toml") != ""
}

func (l *lister) add(key, value string, zero bool) {
	s := Setting{key, value, "default"}
	e := Error{Key: key}
	if at := l.doc.tree.At(key); l.doc.tree.Has(key) {
		e.place(at.Position)
		s.From = e.File
		if e.Line > 0 {
			s.From += ":" + strconv.Itoa(e.Line)
		}
	} else if zero {
		return
	}
	l.list = append(l.list, s)
}

// literal writes what is not a list or a table.
func literal(v reflect.Value) (text string, ok bool) {
	switch x := v.Interface().(type) {
	case Duration:
		return strconv.Quote(time.Duration(x).String()), true
	case Cores:
		return strconv.FormatFloat(float64(x), 'g', -1, 64), true
	case Mode:
		return strconv.Quote("0" + strconv.FormatUint(uint64(x), 8)), true
	case Rlimit:
		return strconv.Quote(x.String()), true
	case netip.Addr:
		return strconv.Quote(x.String()), true
	case netip.Prefix:
		return strconv.Quote(x.String()), true
	}
	switch k := v.Kind(); {
	case k == reflect.String:
		return strconv.Quote(v.String()), true
	case k == reflect.Bool:
		return strconv.FormatBool(v.Bool()), true
	case k >= reflect.Int && k <= reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), true
	case k >= reflect.Uint && k <= reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10), true
	}
	return "", false
}
