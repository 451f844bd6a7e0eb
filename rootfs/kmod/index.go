// Package kmod reads the index that depmod writes beside a kernel's modules, and plans from it what to load, in which order.
//
// The easy case: [Read] a folder lib/modules/<release>, [Index.Resolve] some names, load the files in the
// order given. The index is bytes in, plan out: nothing here opens a device or calls the kernel, so the host
// (which packs modules into an image) and the guest (which loads them) plan alike.
//
// The race is that there is none to win: a module may be loaded by somebody else between the plan and
// the load, and "exists already" is success for the loader. What can go wrong is order. The kernel
// refuses a module whose symbols are not there yet, so a module always comes after everything it needs.
//
// The mechanism: modules.dep (needs), modules.softdep (should come before or after, may be missing),
// modules.builtin (part of the kernel image, nothing to load) and modules.alias (device to module).
// The formats are those of kmod's depmod(8), modules.dep(5).
package kmod

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"

	"rouse/internal/fmt"
)

// Module is one module file of an index.
type Module struct {
	Name  string   // as the kernel calls it: '-' is '_'
	Path  string   // relative to lib/modules/<release>, with its .ko, .ko.xz, ... suffix
	Needs []string // names from modules.dep, as listed there
}

// Index is what depmod knows about one kernel's modules. It is not changed after Read.
type Index struct {
	modules map[string]Module
	builtin map[string]bool
	soft    map[string]softdep
	aliases []alias
}

type softdep struct{ pre, post []string }

// MissingError says that a name is neither a module file nor built in.
// It matches fs.ErrNotExist.
type MissingError struct{ Name string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("module %s: neither modules.dep nor modules.builtin has it", e.Name)
}

// Is makes errors.Is(err, fs.ErrNotExist) true.
func (e *MissingError) Is(target error) bool { return target == fs.ErrNotExist }

// Read reads the index in fsys, the folder lib/modules/<release>. A missing modules.dep is an error that
// matches fs.ErrNotExist; each of the other files may be missing. The alias table, by far the largest, is
// read only if withAliases is true: it is needed for [Index.Match] and for asking by alias.
func Read(fsys fs.FS, withAliases bool) (*Index, error) {
	x := &Index{modules: map[string]Module{}, builtin: map[string]bool{}, soft: map[string]softdep{}}
	readers := []struct {
		name     string
		parse    func(io.Reader) error
		required bool
	}{
		{"modules.dep", x.parseDep, true},
		{"modules.builtin", x.parseBuiltin, false},
		{"modules.builtin.modinfo", x.parseBuiltinInfo, false},
		{"modules.softdep", x.parseSoftdep, false},
		{"modules.alias", x.parseAlias, false},
	}
	for _, r := range readers {
		if r.name == "modules.alias" && !withAliases {
			continue
		}
		if err := readFile(fsys, r.name, r.parse); err != nil && (r.required || !errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("read %s: %w", r.name, err)
		}
	}
	return x, nil
}

func readFile(fsys fs.FS, name string, parse func(io.Reader) error) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return parse(f)
}

// eachLine calls do with every line that is neither empty nor a comment.
func eachLine(r io.Reader, do func(line string)) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20) // one module may need hundreds of others; depmod has no limit of its own
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			do(line)
		}
	}
	return s.Err()
}

// parseDep reads "path: path path". All paths are relative to the folder of the index.
func (x *Index) parseDep(r io.Reader) error {
	return eachLine(r, func(line string) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok || !safePath(file) {
			return
		}
		m := Module{Name: Name(file), Path: path.Clean(file)}
		for _, n := range strings.Fields(needs) {
			m.Needs = append(m.Needs, Name(n))
		}
		x.modules[m.Name] = m
	})
}

// safePath refuses what would lead out of the folder: the index may come from a downloaded package.
func safePath(p string) bool { return fs.ValidPath(path.Clean(p)) && p != "" }

func (x *Index) parseBuiltin(r io.Reader) error {
	return eachLine(r, func(line string) { x.builtin[Name(line)] = true })
}

// parseBuiltinInfo reads modules.builtin.modinfo: "module.key=value" strings, each ended by a zero byte. It names
// some modules that modules.builtin leaves out, and the aliases under which built-in modules are asked for.
func (x *Index) parseBuiltinInfo(r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, 8<<20))
	if err != nil {
		return err
	}
	for _, entry := range strings.Split(string(b), "\x00") {
		name, info, ok := strings.Cut(entry, ".")
		if !ok || name == "" {
			continue
		}
		x.builtin[canonical(name)] = true
		if a, ok := strings.CutPrefix(info, "alias="); ok && !strings.ContainsAny(a, "*?[") {
			x.builtin[canonical(a)] = true
		}
	}
	return nil
}

// parseSoftdep reads "softdep name pre: a b post: c". Names before the first keyword are ignored, as kmod does.
func (x *Index) parseSoftdep(r io.Reader) error {
	return eachLine(r, func(line string) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "softdep" {
			return
		}
		name := canonical(f[1])
		d := x.soft[name]
		var list *[]string
		for _, w := range f[2:] {
			switch {
			case w == "pre:":
				list = &d.pre
			case w == "post:":
				list = &d.post
			case list != nil:
				*list = append(*list, canonical(w))
			}
		}
		x.soft[name] = d
	})
}

// Name is the kernel's name of the module in a file: the base name without .ko and compression, '-' as '_'.
func Name(file string) string {
	base := path.Base(file)
	if i := strings.Index(base, ".ko"); i > 0 {
		base = base[:i]
	}
	return canonical(base)
}

func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Compression is the suffix that says how a module file is compressed: "" for a plain .ko, else "gz", "xz" or "zst".
func Compression(file string) string {
	switch ext := path.Ext(file); ext {
	case ".gz", ".xz", ".zst":
		return ext[1:]
	}
	return ""
}

// Lookup finds a module file by the module's name; '-' and '_' are the same.
func (x *Index) Lookup(name string) (Module, bool) {
	m, ok := x.modules[canonical(name)]
	return m, ok
}

// Builtin tells whether name is part of the kernel image.
func (x *Index) Builtin(name string) bool { return x.builtin[canonical(name)] }

// Names lists all module files' names, sorted.
func (x *Index) Names() []string {
	names := make([]string, 0, len(x.modules))
	for n := range x.modules {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Soft returns the names that name should be loaded after (pre) and that should follow it (post).
func (x *Index) Soft(name string) (pre, post []string) {
	d := x.soft[canonical(name)]
	return d.pre, d.post
}
