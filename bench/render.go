package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// view is how a table of the manual is made of a suite's rows.
type view struct {
	suite, title, text string
	metric             string
	n                  int    // size to compare at; -1: all sizes, drawn as lines
	axis               string // of all sizes: what n counts, for the table of growth
	match              string // what cases begin with, not shown
	labels             []label
	ours, base         string // cases: what is ours (its beginning, or * for all), and what ratios are against
	scale              float64
	unit               string
}

// label is how a case is called for people. A view with labels shows no other cases, in their order.
type label struct{ name, text string }

// writeManual fails if a suite that was run has nothing for one of its views: it has rotted.
func writeManual(docs string) error {
	data := filepath.Join(docs, "performance")
	all, err := load(data)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(introduction)
	shown := map[string]bool{}
	for _, v := range views() {
		r := all[v.suite]
		if r == nil {
			continue
		}
		rows := v.rows(r)
		if len(rows) == 0 {
			return fmt.Errorf("%s: nothing was measured for %q", v.suite, v.title)
		}
		name := v.suite + "-" + slug(v.title)
		shown[filepath.Join(data, name+".svg")] = true
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", v.title, v.text)
		b.WriteString(v.table(rows))
		if err := os.WriteFile(filepath.Join(data, name+".svg"), []byte(v.plot(rows)), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&b, "\n![%s](performance/%s.svg)\n\n", v.title, name)
		if v.n < 0 && len(r.LeftOut) > 0 {
			fmt.Fprintf(&b, "Left out: %s.\n\n", strings.Join(r.LeftOut, "; "))
		}
		fmt.Fprintf(&b, "Measured %s on %s.\n", r.When.Format("2006-01-02"), r.Machine)
	}
	b.WriteString(growthTable(all))
	if err := removeOthers(data, shown); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "performance.md"), []byte(b.String()), 0o644)
}

// removeOthers removes pictures that no view shows any more.
func removeOthers(dir string, shown map[string]bool) error {
	pictures, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil {
		return err
	}
	for _, p := range pictures {
		if !shown[p] {
			if err := os.Remove(p); err != nil {
				return err
			}
		}
	}
	return nil
}

const introduction = `# Performance

Written by ` + "`make bench`" + ` from the data in [performance/](performance/); change neither by hand. Each table is one run on one
machine, cases interleaved; figures are medians with the least and the greatest value. The machine is shared: trust ratios, not
times. Guests run under software emulation where KVM does not work, which makes code of the guest 10 to 30 times slower and leaves the ratios.
`

func (v view) rows(r *Record) []Row {
	var list []Row
	for _, row := range r.Rows {
		if row.Metric == v.metric && strings.HasPrefix(row.Case, v.match) && (v.n < 0 || row.N == v.n) {
			row.Case = strings.TrimPrefix(row.Case, v.match)
			list = append(list, row)
		}
	}
	if v.labels == nil {
		return list
	}
	var named []Row
	for _, l := range v.labels {
		for _, row := range list {
			if row.Case == l.name {
				row.Case = l.text
				named = append(named, row)
			}
		}
	}
	return named
}

func (v view) isOurs(name string) bool {
	return v.ours == "*" || v.ours != "" && strings.HasPrefix(name, v.ours)
}

func (v view) table(rows []Row) string {
	var b strings.Builder
	sizes := v.n < 0
	head, rule := "| case |", "|---|"
	if sizes {
		head, rule = head+" n |", rule+"---:|"
	}
	b.WriteString(head + " " + v.unit + " | least to greatest | ratio |\n" + rule + "---:|---:|---:|\n")
	for _, row := range rows {
		least, most := row.spread()
		ratio := ""
		i := slices.IndexFunc(rows, func(other Row) bool { return other.Case == v.base && other.N == row.N })
		if i >= 0 && rows[i].median() > 0 {
			ratio = fmt.Sprintf("%.2f", row.median()/rows[i].median())
		}
		fmt.Fprintf(&b, "| %s |", row.Case)
		if sizes {
			fmt.Fprintf(&b, " %d |", row.N)
		}
		fmt.Fprintf(&b, " %s | %s to %s | %s |\n", short(row.median()*v.scale), short(least*v.scale), short(most*v.scale), ratio)
	}
	if sizes {
		b.WriteString(growth(v.lines(rows)))
	}
	return b.String()
}

// growth says how each case grows with n: the exponent of the straight line through the logarithms, and of the last piece of
// it, where what it costs to begin no longer hides what it costs to go on.
func growth(list []series) string {
	s := "\nGrowth: "
	for i, l := range list {
		if i > 0 {
			s += ", "
		}
		if l = l.above(0); len(l.n) < 2 {
			s += l.label + " has one size"
			continue
		}
		s += fmt.Sprintf("%s as n^%.2f (at the end n^%.2f)", l.label, slope(l), slope(l.last()))
	}
	return s + ".\n"
}

// above leaves out small sizes.
func (l series) above(n int) series {
	kept := series{label: l.label}
	for i := range l.n {
		if l.n[i] > n {
			kept.n, kept.value = append(kept.n, l.n[i]), append(kept.value, l.value[i])
		}
	}
	return kept
}

func (l series) last() series {
	return series{l.label, l.n[len(l.n)-2:], l.value[len(l.value)-2:]}
}

// worse is the exponent from which on growth counts as worse than linear: what is linear shows up to this on a shared machine.
const worse = 1.15

// growthTable is all that grows, ours and others'.
func growthTable(all map[string]*Record) string {
	var b, bad strings.Builder
	for _, v := range views() {
		r := all[v.suite]
		if r == nil || v.axis == "" {
			continue
		}
		for _, l := range v.lines(v.rows(r)) {
			if l = l.above(0); len(l.n) < 2 {
				continue
			}
			name, end := l.label, slope(l.last())
			if v.isOurs(name) {
				name = "**" + name + "**"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %d to %d | %.2f | %.2f |\n", v.title, name, v.axis, l.n[0], l.n[len(l.n)-1], slope(l), end)
			if end > worse {
				fmt.Fprintf(&bad, "- %s, %s: n^%.2f from %d to %d %s.\n", v.title, name, end, l.n[len(l.n)-2], l.n[len(l.n)-1], v.axis)
			}
		}
	}
	if b.Len() == 0 {
		return ""
	}
	head := fmt.Sprintf(growthHead, worse)
	if bad.Len() == 0 {
		return head + "None here.\n\n" + growthColumns + b.String()
	}
	return head + "\n" + bad.String() + "\n" + growthColumns + b.String()
}

const (
	growthHead = `
## Growth

The exponents of the tables above: all sizes, and the two largest alone, where the cost of beginning no longer hides the cost of
going on. 1 is linear. Ours are bold. Worse than linear (above %.2f between the two largest):
`
	growthColumns = "| what | case | n counts | n | exponent | at the end |\n|---|---|---|---|---:|---:|\n"
)

func slope(l series) float64 {
	var sx, sy, sxx, sxy float64
	for i := range l.n {
		x, y := math.Log(float64(max(1, l.n[i]))), math.Log(max(1e-12, l.value[i]))
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	n := float64(len(l.n))
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}

func (v view) plot(rows []Row) string {
	if v.n >= 0 {
		var list []bar
		for _, row := range rows {
			least, most := row.spread()
			list = append(list, bar{row.Case, row.median() * v.scale, least * v.scale, most * v.scale, v.isOurs(row.Case)})
		}
		return bars(v.title, v.unit, list)
	}
	return lines(v.title, v.unit, v.lines(rows))
}

func (v view) lines(rows []Row) (list []series) {
	for _, row := range rows {
		i := slices.IndexFunc(list, func(s series) bool { return s.label == row.Case })
		if i < 0 {
			i, list = len(list), append(list, series{label: row.Case})
		}
		list[i].n = append(list[i].n, row.N)
		list[i].value = append(list[i].value, row.median()*v.scale)
	}
	return list
}

func slug(title string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, strings.ToLower(title))
}
