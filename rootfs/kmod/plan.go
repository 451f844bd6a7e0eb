package kmod

import (
	"errors"
	"sort"
	"strings"
)

// Resolve plans the loading of names and of everything they need: each module once, after what it needs.
// Built-in names are left out. Names that do not exist are returned as joined [MissingError]
// values beside the plan for all the others, so that the caller may go on without them.
// Soft dependencies are taken where the index has them; one that is missing is not an error.
func (x *Index) Resolve(names []string) ([]Module, error) {
	p := &planner{index: x, state: map[string]bool{}}
	var missing []error
	for _, n := range names {
		if err := p.add(canonical(n)); err != nil {
			missing = append(missing, err)
		}
	}
	return p.out, errors.Join(missing...)
}

type planner struct {
	index *Index
	state map[string]bool // present: visited or being visited, which also ends cycles
	out   []Module
}

func (p *planner) add(name string) error {
	m, ok := p.index.modules[name]
	if !ok {
		return p.addByAlias(name)
	}
	if p.state[name] {
		return nil
	}
	p.state[name] = true
	soft := p.index.soft[name]
	for _, n := range soft.pre {
		_ = p.add(n) // soft: the module works without it
	}
	var missing []error
	// modules.dep lists the nearest need first and what it needs after it; depth first does not rely on that.
	for i := len(m.Needs) - 1; i >= 0; i-- {
		if err := p.add(m.Needs[i]); err != nil {
			missing = append(missing, err)
		}
	}
	p.out = append(p.out, m)
	for _, n := range soft.post {
		_ = p.add(n)
	}
	return errors.Join(missing...)
}

// addByAlias serves names such as "crypto-crc32c" or "fs-ext4", and whatever is built in.
func (p *planner) addByAlias(name string) error {
	if p.index.builtin[name] {
		return nil
	}
	found := p.index.matchCanonical(name)
	if len(found) == 0 {
		return &MissingError{Name: name}
	}
	for _, n := range found {
		if err := p.add(n); err != nil {
			return err
		}
	}
	return nil
}

// Prune renders modules.dep, modules.softdep and modules.alias for an image that holds only the modules of plan,
// which is what Resolve returned. The lines of modules.dep are in load order.
func (x *Index) Prune(plan []Module) (dep, softdep, alias string) {
	paths := map[string]string{}
	for _, m := range plan {
		paths[m.Name] = m.Path
	}
	var d, s, a strings.Builder
	for _, m := range plan {
		d.WriteString(m.Path + ":")
		for _, n := range m.Needs {
			if p, ok := paths[n]; ok {
				d.WriteString(" " + p)
			}
		}
		d.WriteString("\n")
		writeSoftdep(&s, m.Name, x.soft[m.Name])
	}
	for _, al := range x.aliases {
		if _, ok := paths[al.module]; ok {
			a.WriteString("alias " + al.pattern + " " + al.module + "\n")
		}
	}
	return d.String(), s.String(), a.String()
}

func writeSoftdep(b *strings.Builder, name string, d softdep) {
	if len(d.pre)+len(d.post) == 0 {
		return
	}
	b.WriteString("softdep " + name)
	if len(d.pre) > 0 {
		b.WriteString(" pre: " + strings.Join(d.pre, " "))
	}
	if len(d.post) > 0 {
		b.WriteString(" post: " + strings.Join(d.post, " "))
	}
	b.WriteString("\n")
}

// BuiltinList renders modules.builtin: the names alone, sorted, which is all that Read needs of it.
func (x *Index) BuiltinList() string {
	names := make([]string, 0, len(x.builtin))
	for n := range x.builtin {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		b.WriteString("kernel/" + n + ".ko\n")
	}
	return b.String()
}
