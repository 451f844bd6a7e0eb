package toml

// Merge lays over above v, table by table: a key that both have is over's. A list replaces a list, but
// where all elements of both are tables with a name or a mac, they are merged by it, and new ones come
// last. Positions stay those of the text that a value is from. over is part of v afterwards.
func (v *Value) Merge(over *Value) {
	for _, m := range over.Members {
		have := v.Get(m.Name)
		switch {
		case have == nil:
			v.add(part{Position: m.Position, name: m.Name}, m.Value)
		case have.Kind == Table && m.Value.Kind == Table:
			have.Merge(m.Value)
		case have.named() && m.Value.named():
			have.mergeList(m.Value)
		default:
			*have = *m.Value
		}
	}
}

func (v *Value) mergeList(over *Value) {
	for _, element := range over.List {
		if have := v.called(element.title()); have != nil {
			have.Merge(element)
		} else {
			v.List = append(v.List, element)
		}
	}
}

// named says if v is a list of tables that each have a title.
func (v *Value) named() bool {
	for _, e := range v.List {
		if e.Kind != Table || e.title() == "" {
			return false
		}
	}
	return v.Kind == Array
}

func (v *Value) called(title string) *Value {
	for _, e := range v.List {
		if e.title() == title {
			return e
		}
	}
	return nil
}

// title is what an element of a list is known by.
func (v *Value) title() string {
	for _, key := range [...]string{"name", "mac"} {
		if m := v.Get(key); m != nil && m.Kind == String {
			return m.Text
		}
	}
	return ""
}
