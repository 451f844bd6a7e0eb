package config

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"rouse/config/toml"
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
// each as an *Error, joined; only what is no TOML, or of the wrong type, hides what follows from it.
func Parse(file string, text []byte, overrides []string) (Config, error) {
	c := Default()
	doc, err := toml.Parse(text)
	if err != nil {
		return Config{}, refusal(file, err)
	}
	var errs []error
	mistyped := false
	for _, e := range doc.Decode(&c) {
		errs = append(errs, refusal(file, e))
		mistyped = mistyped || !e.Unknown
	}
	if mistyped {
		return Config{}, errors.Join(errs...)
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
		e := &Error{File: file, Line: line(doc, p.key), Key: p.key, Problem: p.problem, Cure: p.cure}
		if overridden(overrides, p.key) {
			e.File, e.Line, e.Key = commandLine, 0, "rouse."+p.key
		}
		errs = append(errs, e)
	}
	return c, errors.Join(errs...)
}

// refusal is a reader's error with its file and a cure.
func refusal(file string, err error) error {
	e := &Error{File: file, Problem: err.Error(), Cure: "see docs/configuration.md for the form of every key"}
	var t *toml.Error
	if !errors.As(err, &t) {
		return e
	}
	e.Line, e.Key, e.Problem = t.Line, t.Key, t.Problem
	if t.Unknown {
		e.Cure = "remove it"
		if near := nearest(t.Key); near != "" {
			e.Cure = "did you mean " + near + "?"
		}
	}
	return e
}

// line is where a key stands, or the innermost table around it that the file has; 0 if it has none.
func line(doc *toml.Value, key string) int {
	if v := doc.At(key); v != doc {
		return v.Line
	}
	return 0
}

// commandLine stands for the file in errors about overrides.
const commandLine = "kernel command line"

func overridden(overrides []string, key string) bool {
	return slices.ContainsFunc(overrides, func(o string) bool { return strings.HasPrefix(o, key+"=") })
}

// override sets one key from the kernel command line. A value that is no TOML value is a string, so
// that nobody has to quote inside a boot loader's configuration.
func override(c *Config, setting string) error {
	key, value, ok := strings.Cut(setting, "=")
	if !ok || key == "" {
		return &Error{File: commandLine, Key: "rouse." + setting, Problem: "no value", Cure: "write rouse.KEY=VALUE"}
	}
	problem := set(c, key, value)
	if problem != "" && problem != noSuchKey && problem != isList {
		problem = set(c, key, strconv.Quote(value))
	}
	if problem == "" {
		return nil
	}
	return &Error{File: commandLine, Key: "rouse." + key, Problem: problem,
		Cure: "settable here are hostname and the keys of the tables gate, sysgenid, quiesce, adjust and control"}
}

const (
	noSuchKey = "no such key" // as Decode has it
	isList    = "a list of tables cannot be set"
)

// set reads one line of TOML into c, which stays as it is if there is a problem.
func set(c *Config, key, value string) (problem string) {
	doc, err := toml.Parse([]byte(key + " = " + value))
	var e *toml.Error
	switch {
	case errors.As(err, &e):
		return e.Problem
	case len(doc.Members) != 1:
		return "one key at a time" // a line break in the value would begin another
	case doc.Members[0].Name == "service" || doc.Members[0].Name == "interface":
		return isList
	}
	try := *c
	if errs := doc.Decode(&try); len(errs) > 0 {
		return errs[0].Problem
	}
	*c = try
	return ""
}

// nearest is the known key that an unknown one was probably meant to be.
func nearest(key string) string {
	parent, name := splitKey(stripIndexes(key))
	name = strings.ToLower(name)
	best, least := "", 2+len(name)/3
	for _, k := range knownKeys {
		p, known := splitKey(k)
		if d := distance(known, name); p == parent && d < least {
			best, least = known, d
		}
	}
	return best
}

func splitKey(key string) (parent, name string) {
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		return key[:i], key[i+1:]
	}
	return "", key
}

// stripIndexes writes a key as knownKeys has it: service[1].exec as service.exec.
func stripIndexes(key string) string {
	for {
		before, rest, ok := strings.Cut(key, "[")
		if !ok {
			return key
		}
		_, after, _ := strings.Cut(rest, "]")
		key = before + after
	}
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
