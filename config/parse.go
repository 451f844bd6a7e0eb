package config

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Error is a refused configuration.
type Error struct {
	// File is the name given to Parse; Line counts from 1, 0 where the place is not in the file.
	File string
	Line int
	// Key is the dotted key, with the index of a list's element: service[0].exec.
	Key string
	// Problem says what is wrong, Cure what to write instead.
	Problem, Cure string
}

func (e *Error) Error() string {
	at := e.File
	if e.Line > 0 {
		at += ":" + strconv.Itoa(e.Line)
	}
	if e.Key != "" {
		at += ": " + e.Key
	}
	s := at + ": " + e.Problem
	if e.Cure != "" {
		s += "; " + e.Cure
	}
	return s
}

// Parse reads a configuration and the kernel command line's `rouse.*` settings above it, and checks
// the result. overrides are "KEY=VALUE" without the `rouse.` prefix. All that is wrong is reported,
// each as an *Error, joined.
func Parse(file string, text []byte, overrides []string) (Config, error) {
	c := Default()
	meta, err := toml.Decode(string(text), &c)
	if err != nil {
		return Config{}, syntaxError(file, err)
	}
	lines := index(text)
	var errs []error
	for _, key := range meta.Undecoded() {
		errs = append(errs, unknownKey(file, lines, key))
	}
	for _, o := range overrides {
		if err := override(&c, o); err != nil {
			errs = append(errs, err)
		}
	}
	for i := range c.Services {
		c.Services[i].serviceDefaults()
	}
	for _, p := range check(&c) {
		errs = append(errs, &Error{File: file, Line: lines.of(p.key), Key: p.key, Problem: p.problem, Cure: p.cure})
	}
	return c, errors.Join(errs...)
}

func syntaxError(file string, err error) error {
	e := &Error{File: file, Problem: err.Error(), Cure: "see docs/configuration.md for the form of every key"}
	var p toml.ParseError
	if errors.As(err, &p) {
		e.Line, e.Key = p.Position.Line, p.LastKey
		if p.Message != "" {
			e.Problem = p.Message
		}
		return e
	}
	// A value of the wrong type comes as text only: `toml: line 3 (last key "a.b"): problem`.
	if n, scanErr := fmt.Sscanf(err.Error(), "toml: line %d (last key %q): ", &e.Line, &e.Key); n == 2 && scanErr == nil {
		_, e.Problem, _ = strings.Cut(err.Error(), "): ")
	}
	return e
}

func unknownKey(file string, lines lineIndex, key toml.Key) error {
	cure := "remove it"
	if near := nearest(key); near != "" {
		cure = "did you mean " + near + "?"
	}
	return &Error{File: file, Line: lines.of(key.String()), Key: key.String(), Problem: "no such key", Cure: cure}
}

// override sets one key from the kernel command line. A value that is no TOML value is a string, so
// that nobody has to quote inside a boot loader's configuration.
func override(c *Config, setting string) error {
	const file = "kernel command line"
	key, value, ok := strings.Cut(setting, "=")
	if !ok || key == "" {
		return &Error{File: file, Key: "rouse." + setting, Problem: "no value", Cure: "write rouse.KEY=VALUE"}
	}
	fail := func(problem string) error {
		return &Error{File: file, Key: "rouse." + key, Problem: problem,
			Cure: "settable here are hostname and the keys of the tables gate, sysgenid, quiesce, adjust and control"}
	}
	if head, _, _ := strings.Cut(key, "."); head == "service" || head == "interface" {
		return fail("a list of tables cannot be set")
	}
	try := *c
	meta, err := toml.Decode(key+" = "+value+"\n", &try)
	if err != nil {
		try = *c
		meta, err = toml.Decode(key+" = "+strconv.Quote(value)+"\n", &try)
	}
	if err != nil {
		var p toml.ParseError
		if errors.As(err, &p) && p.Message != "" {
			return fail(p.Message)
		}
		return fail(err.Error())
	}
	if len(meta.Undecoded()) > 0 {
		return fail("no such key")
	}
	*c = try
	return nil
}

// lineIndex knows on which line each key stands: the TOML library keeps positions to itself for keys
// that it did not decode and for the elements of lists of tables.
type lineIndex map[string]int

// of finds a key, or the innermost table around it that has a line.
func (x lineIndex) of(key string) int {
	for key != "" {
		if n, ok := x[key]; ok {
			return n
		}
		// A list's name without index, as the library writes unknown keys, is its first element that has the key.
		if n := x.anyElement(key); n > 0 {
			return n
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
	return 0
}

func (x lineIndex) anyElement(key string) int {
	best := 0
	for k, n := range x {
		if stripIndexes(k) == key && (best == 0 || n < best) {
			best = n
		}
	}
	return best
}

func stripIndexes(key string) string {
	var b strings.Builder
	inside := false
	for _, r := range key {
		switch {
		case r == '[':
			inside = true
		case r == ']':
			inside = false
		case !inside:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// index reads headers and "key =" at the beginning of lines; what stands inside an inline table has
// the line of its key.
func index(text []byte) lineIndex {
	x := lineIndex{}
	counts := map[string]int{}
	prefix := ""
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if name, ok := header(line, "[[", "]]"); ok {
			name = qualify(name, counts)
			n := counts[name]
			counts[name]++
			prefix = fmt.Sprintf("%s[%d]", name, n)
			x[prefix] = i + 1
		} else if name, ok := header(line, "[", "]"); ok {
			prefix = qualify(name, counts)
			x[prefix] = i + 1
		} else if key, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			key = strings.Trim(strings.TrimSpace(key), `"'`)
			if prefix != "" {
				key = prefix + "." + key
			}
			if _, seen := x[key]; !seen {
				x[key] = i + 1
			}
		}
	}
	return x
}

// header takes the name out of a table header, or says that the line is none.
func header(line, open, shut string) (string, bool) {
	if !strings.HasPrefix(line, open) {
		return "", false
	}
	name, _, ok := strings.Cut(line[len(open):], shut)
	return strings.TrimSpace(name), ok && !strings.ContainsAny(name, `,="`)
}

// qualify puts the index of the newest element behind a list's name in a nested header, so that
// before-snapshot hooks of the second service are service[1].before-snapshot.
func qualify(name string, counts map[string]int) string {
	head, rest, ok := strings.Cut(name, ".")
	if n := counts[head]; ok && n > 0 {
		return fmt.Sprintf("%s[%d].%s", head, n-1, rest)
	}
	return name
}

// nearest is the known key that an unknown one was probably meant to be.
func nearest(key toml.Key) string {
	last := key[len(key)-1]
	parent := strings.Join(key[:len(key)-1], ".")
	var known []string
	for _, k := range knownKeys {
		if p, name := splitKey(k); p == parent {
			known = append(known, name)
		}
	}
	sort.Slice(known, func(i, j int) bool { return distance(known[i], last) < distance(known[j], last) })
	if len(known) == 0 || distance(known[0], last) > 1+len(last)/3 {
		return ""
	}
	return known[0]
}

func splitKey(key string) (parent, name string) {
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		return key[:i], key[i+1:]
	}
	return "", key
}

// distance is Levenshtein's, for short keys.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
