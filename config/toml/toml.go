// Package toml reads TOML 1.0 for rouse's configuration, and keeps the place of everything.
//
// The easy case is ParseFile, which makes a tree of values of a text, and Value.Decode, which puts the
// tree into a struct by its `toml:"name"` tags. Whoever wrote the text wants to be told all that is
// wrong, and where: Decode goes on after an unknown key or a wrong type and gives each with line,
// column and whole key, the index in a list included (service[1].exec). Text that is no TOML ends the
// reading at its first mistake, for what follows would be guessed at.
//
// It is written here for two reasons. PID 1 has a budget of 4 MiB, of which a general library takes 160 KB:
// it decodes into everything and encodes too. And such a library keeps to itself where unknown keys
// and the elements of lists stand.
//
// What TOML 1.1 adds to inline tables (line breaks, comments, a comma at the end) and to escapes (\e,
// \xHH) is read as well: rouse's files could have it before this package was there. Floats and dates
// are recognised so as to be refused by name; no key takes them.
//
// The mechanism is one pass over the text by recursive descent. The first error stays and moves the
// reader to the end of the text, so that every loop ends by itself and no function has to return one.
// The specification is https://toml.io/en/v1.0.0; sections named in comments are its.
package toml

import "strconv"

// MaxSize is the longest text that ParseFile takes, in bytes, and MaxDepth how deep arrays, inline tables
// and the parts of a key may go, each. Both are far above what a configuration needs and far below
// what would bring a guest with little memory down.
const (
	MaxSize  = 256 << 10
	MaxDepth = 64
)

// Kind is the type of a value.
type Kind uint8

// The kinds of TOML. Time is a date, a time or both.
const (
	String Kind = iota
	Integer
	Boolean
	Array
	Table
	Float
	Time
)

var kindNames = [...]string{"a string", "an integer", "a boolean", "an array", "a table", "a float", "a date or time"}

// String is the kind's name with its article.
func (k Kind) String() string { return kindNames[k] }

// Position is a place in the text that ParseFile was given. Line and Column count from 1; Column counts bytes.
type Position struct {
	Line, Column int
	File         string
}

// Value is a node of the tree. A table that stands under a header has the header's position, any other
// value that of its first character.
type Value struct {
	Kind Kind
	made origin
	Position
	// Text is a string's content; a number, a date or a boolean has here what was written.
	Text string
	// Int is an integer's value, and 1 for true.
	Int int64
	// List are an array's elements, Members a table's keys in the order of the text.
	List    []*Value
	Members []Member
	names   map[string]*Value
}

// Member is one key of a table. Position is the key's own.
type Member struct {
	Position
	Name  string
	Value *Value
}

// origin is what made a table or an array, and so what may still be added to it.
type origin uint8

const (
	inline   origin = iota // { } and [ ]: whole where they stand
	implicit               // [a.b] made a: a header [a] may follow, once
	header                 // [a] or [[a]]: has had its header
	dotted                 // a.b = 1 made a: more such keys may follow, but no header
)

// Get is the value of one key of a table, nil if there is none.
func (v *Value) Get(name string) *Value { return v.names[name] }

func (v *Value) add(k part, child *Value) *Value {
	if v.names == nil {
		v.names = map[string]*Value{}
	}
	v.names[k.name] = child
	v.Members = append(v.Members, Member{k.Position, k.name, child})
	return child
}

// At is the value that a key such as service[1].exec leads to from v, or the last one on the way that
// is there. It knows bare names only, no quoted ones.
func (v *Value) At(key string) *Value {
	v, _ = v.find(key)
	return v
}

// Has says if the key leads to a value.
func (v *Value) Has(key string) bool {
	_, rest := v.find(key)
	return rest == ""
}

func (v *Value) find(key string) (last *Value, rest string) {
	for key != "" {
		end := 1
		for end < len(key) && key[end] != '.' && key[end] != '[' {
			end++
		}
		next := v.child(key[:end])
		if next == nil {
			break
		}
		v, key = next, key[end:]
	}
	return v, key
}

// child takes one step of At: "name", ".name" or "[1]".
func (v *Value) child(step string) *Value {
	if step[0] != '[' {
		if step[0] == '.' {
			step = step[1:]
		}
		return v.Get(step)
	}
	i, err := strconv.Atoi(step[1:max(1, len(step)-1)])
	if err != nil || i < 0 || i >= len(v.List) {
		return nil
	}
	return v.List[i]
}

// Error is one mistake in a text.
type Error struct {
	Position
	// Key is the whole key, with the indexes of lists; empty where the mistake is in no key.
	Key     string
	Problem string
	// Unknown is a key that the struct does not have, Redefined one that the text has twice.
	Unknown, Redefined bool
}

func (e *Error) Error() string {
	s := "line " + strconv.Itoa(e.Line) + ", column " + strconv.Itoa(e.Column) + ": "
	if e.Key != "" {
		s += e.Key + ": "
	}
	return s + e.Problem
}

// part is one step of a key: a name, or the index in a list if inList.
type part struct {
	Position
	name   string
	index  int
	inList bool
}

// path is a whole key. It becomes text only for an error.
type path []part

func (k path) String() string {
	var b []byte
	for i, p := range k {
		if p.inList {
			b = append(strconv.AppendInt(append(b, '['), int64(p.index), 10), ']')
			continue
		}
		if i > 0 {
			b = append(b, '.')
		}
		if p.name != "" && bareLen(p.name) == len(p.name) {
			b = append(b, p.name...)
		} else {
			b = strconv.AppendQuote(b, p.name)
		}
	}
	return string(b)
}
