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
	n                  int // size to compare at; -1: all sizes, drawn as lines
	match              string
	ours, base         string // cases: what is ours, and what ratios are against
	scale              float64
	unit               string
}

func writeManual(docs string) error {
	data := filepath.Join(docs, "performance")
	all, err := load(data)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(introduction)
	for _, v := range views() {
		r := all[v.suite]
		if r == nil {
			continue
		}
		rows := v.rows(r)
		if len(rows) == 0 {
			continue
		}
		name := v.suite + "-" + slug(v.title)
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", v.title, v.text)
		b.WriteString(v.table(rows))
		if err := os.WriteFile(filepath.Join(data, name+".svg"), []byte(v.plot(rows)), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&b, "\n![%s](performance/%s.svg)\n\nMeasured %s on %s.\n", v.title, name, r.When.Format("2006-01-02"), r.Machine)
	}
	return os.WriteFile(filepath.Join(docs, "performance.md"), []byte(b.String()), 0o644)
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
	return list
}

func (v view) isOurs(name string) bool { return v.ours != "" && strings.HasPrefix(name, v.ours) }

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

// growth says how each case grows with n: the exponent of the straight line through the logarithms. What is
// worse than linear has one above 1.
func growth(list []series) string {
	s := "\nGrowth: "
	for i, l := range list {
		if i > 0 {
			s += ", "
		}
		if len(l.n) < 2 {
			s += l.label + " has one size"
			continue
		}
		s += fmt.Sprintf("%s as n^%.2f", l.label, slope(l))
	}
	return s + ".\n"
}

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
