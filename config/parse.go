package config

import (
	"errors"
	"strconv"
	"strings"
	"time"

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

// Source is a text of the configuration.
type Source struct {
	// Name is what errors call it: a path, or such as "fw_cfg opt/rouse/hostname".
	Name string
	// Text is TOML; with Setting one "KEY=VALUE", whose value need not be quoted.
	Text    []byte
	Setting bool
}

// Document is a configuration with the places that it is from.
type Document struct {
	Config Config
	tree   *toml.Value
}

// Parse is Load of one file and of settings of the kernel command line above it, without their `rouse.`
// prefix.
func Parse(file string, text []byte, overrides []string) (Config, error) {
	sources := []Source{{Name: file, Text: text}}
	for _, o := range overrides {
		sources = append(sources, Source{Name: CommandLine, Text: []byte(o), Setting: true})
	}
	d, err := Load(sources)
	return d.Config, err
}

// Load reads a configuration from all its sources, of which later ones win key by key, and checks the
// result. All that is wrong is reported, each as an *Error, joined; only what is no TOML, or of the
// wrong type, hides what follows from it.
func Load(sources []Source) (Document, error) {
	d := Document{Config: Default(), tree: &toml.Value{Kind: toml.Table}}
	var errs []error
	for i, s := range sources {
		if i == 0 {
			d.tree.File = s.Name
		}
		tree, err := s.parse()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d.tree.Merge(tree)
	}
	if len(errs) > 0 {
		return Document{}, errors.Join(errs...)
	}
	mistyped := false
	for _, e := range d.tree.Decode(&d.Config) {
		errs = append(errs, refusal(e.File, e))
		mistyped = mistyped || !e.Unknown
	}
	if mistyped {
		return Document{}, errors.Join(errs...)
	}
	for i := range d.Config.Mounts {
		d.Config.Mounts[i].mountDefaults()
	}
	for i := range d.Config.Services {
		d.Config.Services[i].serviceDefaults()
	}
	d.Config.EachHook(func(_ string, h *Hook) { setDefault(&h.Timeout, Duration(10*time.Second)) })
	for _, p := range check(&d.Config) {
		errs = append(errs, d.error(p))
	}
	return d, errors.Join(errs...)
}

func (s Source) parse() (*toml.Value, error) {
	if s.Setting {
		return setting(s.Name, string(s.Text))
	}
	tree, err := toml.ParseFile(s.Name, s.Text)
	if err != nil {
		return nil, refusal(s.Name, err)
	}
	return tree, nil
}

// error is a problem with its place.
func (d Document) error(p problem) *Error {
	e := &Error{Key: p.key, Problem: p.problem, Cure: p.cure}
	e.place(d.tree.At(p.key).Position)
	return e
}

// place fills in where the key stands, or the innermost table around it that is written down; nothing
// if there is none.
func (e *Error) place(at toml.Position) {
	if e.File, e.Line = at.File, at.Line; at.File == CommandLine {
		e.Key = "rouse." + e.Key
	}
}

// refusal is a reader's error with its file and a cure.
func refusal(file string, err error) error {
	e := &Error{File: file, Problem: err.Error(), Cure: "see docs/configuration.md for the form of every key"}
	var t *toml.Error
	if !errors.As(err, &t) {
		return e
	}
	e.Key, e.Problem = t.Key, t.Problem
	e.place(t.Position)
	if t.Unknown {
		e.Cure = "remove it"
		if near := nearest(t.Key); near != "" {
			e.Cure = "did you mean " + near + "?"
		}
	}
	return e
}

// CommandLine is the source of settings of the kernel command line, whose keys begin with "rouse.".
const CommandLine = "kernel command line"

// setting makes a tree of KEY=VALUE. A value that is no TOML value of the key's type is a string, so
// that nobody has to quote inside a boot loader's configuration.
func setting(source, text string) (*toml.Value, error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return nil, settingError(source, text, "no value")
	}
	tree, problem := set(source, key, value)
	if problem != "" && problem != noSuchKey && problem != isList {
		tree, problem = set(source, key, strconv.Quote(value))
	}
	if problem != "" {
		return nil, settingError(source, key, problem)
	}
	unnumber(tree)
	return tree, nil
}

// unnumber takes away the lines of a setting, which has only one.
func unnumber(v *toml.Value) {
	v.Line = 0
	for i := range v.Members {
		v.Members[i].Line = 0
		unnumber(v.Members[i].Value)
	}
}

func settingError(source, key, problem string) error {
	e := &Error{Key: key, Problem: problem, Cure: "write KEY=VALUE; lists of tables cannot be set here"}
	e.place(toml.Position{File: source})
	return e
}

const (
	noSuchKey = "no such key" // as Decode has it
	isList    = "a list of tables cannot be set"
)

// set reads one line of TOML, and tries it.
func set(source, key, value string) (tree *toml.Value, problem string) {
	tree, err := toml.ParseFile(source, []byte(key+" = "+value))
	var e *toml.Error
	switch {
	case errors.As(err, &e):
		return nil, e.Problem
	case len(tree.Members) != 1:
		return nil, "one key at a time" // a line break in the value would begin another
	}
	switch tree.Members[0].Name {
	case "service", "interface", "mount":
		return nil, isList
	}
	var try Config
	if errs := tree.Decode(&try); len(errs) > 0 {
		return nil, errs[0].Problem
	}
	return tree, ""
}

// nearest is the known key that an unknown one was probably meant to be.
func nearest(key string) string {
	parent, name := splitKey(stripIndexes(key))
	name = strings.ToLower(name)
	best, least := "", 2+len(name)/3
	for _, k := range KnownKeys() {
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

// stripIndexes writes a key as KnownKeys has it: service[1].exec as service.exec.
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
