package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample has rows of a table with bars, and of one that grows.
func sample() *Record {
	r := &Record{Suite: "sample", When: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Machine: "2 x Model <1> & more"}
	for i, v := range []float64{1500, 1000, 2000} {
		r.add("Switch/rouse", 0, "time", "ns", v)
		r.add("Switch/nft & <others>", 0, "time", "ns", v*float64(10+i))
	}
	for _, n := range []int{1, 10, 100} {
		r.add("linear", n, "cost", "ns", float64(n)*2e3)
		r.add("square", n, "cost", "ns", float64(n*n)*1e3)
	}
	r.add("once", 1, "cost", "ns", 5e3)
	return r
}

var (
	sampleBars  = view{suite: "sample", title: "Bars & others", text: "Text.", metric: "time", match: "Switch/", ours: "rouse", base: "rouse", scale: 1e-3, unit: "µs"}
	sampleLines = view{suite: "sample", title: "Lines", text: "Text.", metric: "cost", n: -1, base: "linear", scale: 1e-3, unit: "µs"}
)

func TestTable(t *testing.T) {
	for _, c := range []struct {
		golden string
		view   view
	}{{"bars.md", sampleBars}, {"lines.md", sampleLines}} {
		t.Run(c.golden, func(t *testing.T) { golden(t, c.golden, c.view.table(c.view.rows(sample()))) })
	}
}

// golden compares with a file, which `go test ./bench -update` writes.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestSlope(t *testing.T) {
	for _, c := range []struct {
		name string
		of   func(n float64) float64
		want float64
	}{
		{"constant", func(float64) float64 { return 7 }, 0},
		{"root", math.Sqrt, 0.5},
		{"linear", func(n float64) float64 { return 3 * n }, 1},
		{"square", func(n float64) float64 { return n * n / 5 }, 2},
	} {
		l := series{label: c.name}
		for _, n := range []int{1, 10, 100, 1000} {
			l.n, l.value = append(l.n, n), append(l.value, c.of(float64(n)))
		}
		if got := slope(l); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: n^%v, want n^%v", c.name, got, c.want)
		}
	}
}

func TestShort(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.00123456: "0.00123", 1.5: "1.5", 999: "999", 1000: "1k", 12345: "12.3k", 2.5e6: "2.5M", 4e9: "4G"} {
		if got := short(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// TestPlots: well-formed XML without a number that no renderer can place.
func TestPlots(t *testing.T) {
	single := &Record{}
	single.add("one", 5, "cost", "ns", 1)
	zero := &Record{}
	zero.add("nothing", 1, "cost", "ns", 0)
	zero.add("nothing", 10, "cost", "ns", 0)
	bars := view{metric: "cost", n: 5, scale: 1, title: "one", unit: "ns"}
	for _, c := range []struct{ name, svg string }{
		{"bars", sampleBars.plot(sampleBars.rows(sample()))},
		{"lines", sampleLines.plot(sampleLines.rows(sample()))},
		{"one bar", bars.plot(bars.rows(single))},
		{"one point", sampleLines.plot(sampleLines.rows(single))},
		{"all zero", sampleLines.plot(sampleLines.rows(zero))},
		{"a bar of zero", view{metric: "cost", n: 1, scale: 1}.plot(view{metric: "cost", n: 1}.rows(zero))},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := wellFormed(c.svg); err != nil {
				t.Errorf("%v:\n%s", err, c.svg)
			}
		})
	}
}

func wellFormed(svg string) error {
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		return errors.New("a coordinate is no number")
	}
	elements := 0
	for d := xml.NewDecoder(strings.NewReader(svg)); ; elements++ {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	if elements < 10 {
		return errors.New("nothing is drawn")
	}
	return nil
}

// TestManual writes the whole manual from what is kept, and links only pictures that are there.
func TestManual(t *testing.T) {
	docs := t.TempDir()
	for i, v := range views() {
		r := &Record{Suite: v.suite, Machine: "m"}
		if all, err := load(filepath.Join(docs, "performance")); err == nil && all[v.suite] != nil {
			r = all[v.suite]
		}
		name := "case"
		if v.labels != nil {
			name = v.labels[0].name
		}
		for _, n := range []int{max(0, v.n), max(10, v.n)} {
			r.add(v.match+name, n, v.metric, "ms", float64(i+1))
		}
		if err := r.save(filepath.Join(docs, "performance")); err != nil {
			t.Fatal(err)
		}
	}
	stale := filepath.Join(docs, "performance", "stale.svg")
	if err := os.WriteFile(stale, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeManual(docs); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("a picture that nothing shows stays: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range views() {
		if !strings.Contains(string(text), "\n## "+v.title+"\n") {
			t.Errorf("%q has no table", v.title)
		}
		picture := "performance/" + v.suite + "-" + slug(v.title) + ".svg"
		if strings.Count(string(text), "("+picture+")") != 1 {
			t.Errorf("%s is not linked once: two views of one name?", picture)
		}
		svg, err := os.ReadFile(filepath.Join(docs, picture))
		if err != nil {
			t.Error(err)
		} else if err := wellFormed(string(svg)); err != nil {
			t.Errorf("%s: %v", picture, err)
		}
	}
}

// TestRotten: a suite that ran and has nothing for one of its views is an error, named.
func TestRotten(t *testing.T) {
	docs := t.TempDir()
	r := &Record{Suite: "idle", Machine: "m"}
	r.add("rouse", 0, "idle-wakeups", "per second", 1)
	if err := r.save(filepath.Join(docs, "performance")); err != nil {
		t.Fatal(err)
	}
	if err := writeManual(docs); err == nil || !strings.Contains(err.Error(), "Processor time") {
		t.Errorf("the missing view is not named: %v", err)
	}
}

// TestGrowthTable names what is worse than linear at the end, and only that.
func TestGrowthTable(t *testing.T) {
	const named = "from 10 to 100 clones"
	for _, c := range []struct {
		name string
		of   func(n float64) float64
		want string
	}{
		{"linear", func(n float64) float64 { return 3 * n }, "| 1 to 100 | 1.00 | 1.00 |"},
		{"square", func(n float64) float64 { return n * n }, "| 1 to 100 | 2.00 | 2.00 |"},
		{"linear behind a start", func(n float64) float64 { return 10 + n }, "| 0.50 | 0.74 |"},
		{"square behind a start", func(n float64) float64 { return 1000 + n*n }, "| 0.52 | 1.00 |"},
		{"square at last", func(n float64) float64 { return 100 + n*n }, "| 1.00 | 1.70 |"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Record{}
			r.add("clones", 0, "ready", "ms", 1) // no size to grow from
			for _, n := range []int{1, 10, 100} {
				r.add("clones", n, "ready", "ms", c.of(float64(n)))
			}
			got := growthTable(map[string]*Record{"clones": r})
			if !strings.Contains(got, c.want) {
				t.Errorf("no %q in:\n%s", c.want, got)
			}
			if bad := strings.Contains(c.want, " 2.00 |") || strings.Contains(c.want, " 1.70 |"); strings.Contains(got, named) != bad || strings.Contains(got, "None here") == bad {
				t.Errorf("named as worse than linear: want %v:\n%s", bad, got)
			}
		})
	}
}

// TestViews: each view is of a suite that runs, under a title of its own.
func TestViews(t *testing.T) {
	known := map[string]bool{}
	for _, s := range suites() {
		if known[s.name] {
			t.Errorf("two suites are called %s", s.name)
		}
		known[s.name] = true
	}
	for _, v := range views() {
		if !known[v.suite] {
			t.Errorf("%q is of no suite: %s", v.title, v.suite)
		}
		if v.scale == 0 || v.unit == "" || v.text == "" {
			t.Errorf("%q lacks its scale, unit or text", v.title)
		}
	}
}
