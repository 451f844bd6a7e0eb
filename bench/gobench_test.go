package main

import (
	"strings"
	"testing"
)

func TestBenchName(t *testing.T) {
	for _, c := range []struct {
		text, name string
		n          int
	}{
		{"BenchmarkBusy/1000-2", "Busy", 1000},
		{"BenchmarkFanout/read/1000/page-2", "Fanout/read/page", 1000},
		{"BenchmarkSwitch/rouse/nftables+tc-16", "Switch/rouse/nftables+tc", 0},
		{"BenchmarkSwitch/others/nft_-f-2", "Switch/others/nft_-f", 0},
		// With one processor nothing is appended, and a word after a dash belongs to the name.
		{"BenchmarkSwitch/others/nft_-f", "Switch/others/nft_-f", 0},
		{"BenchmarkThaw", "Thaw", 0},
		{"BenchmarkThaw/0-2", "Thaw", 0},
	} {
		if name, n := benchName(c.text); name != c.name || n != c.n {
			t.Errorf("%s: %q %d, want %q %d", c.text, name, n, c.name, c.n)
		}
	}
}

func TestParseBench(t *testing.T) {
	const output = `goos: linux
pkg: rouse/service
BenchmarkThaw/10-2     	    1000	      2500 ns/op	      48 B/op	       1 allocs/op
BenchmarkThaw/10-2     	    1000	      3500 ns/op	      48 B/op	       1 allocs/op
BenchmarkBusy/100-2    	      20	   1e+06 ns/op	        94.5 cpu-ns/op	       288 ss-cpu-ns
--- SKIP: BenchmarkSkipped
PASS
ok  	rouse/service	3.021s
`
	var r Record
	if err := parseBench(&r, []byte(output)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		n      int
		metric string
		unit   string
		median float64
		values int
	}{
		{"Thaw", 10, "time", "ns/op", 3000, 2},
		{"Thaw", 10, "B", "B/op", 48, 2},
		{"Thaw", 10, "allocs", "allocs/op", 1, 2},
		{"Busy", 100, "time", "ns/op", 1e6, 1},
		{"Busy", 100, "cpu-ns", "cpu-ns/op", 94.5, 1},
		{"Busy", 100, "ss-cpu-ns", "ss-cpu-ns", 288, 1},
	} {
		row := r.find(c.name, c.n, c.metric)
		if row == nil {
			t.Errorf("%s/%d %s is missing", c.name, c.n, c.metric)
			continue
		}
		if row.median() != c.median || row.Unit != c.unit || len(row.Values) != c.values {
			t.Errorf("%s/%d %s: %+v", c.name, c.n, c.metric, *row)
		}
	}
	if len(r.Rows) != 6 {
		t.Errorf("%d rows, want 6", len(r.Rows))
	}
}

func TestParseBenchRefuses(t *testing.T) {
	for _, c := range []struct{ name, output, want string }{
		{"nothing ran", "PASS\nok rouse/service 0.1s\n", "no benchmark ran"},
		{"a value is no number", "BenchmarkThaw-2 100 fast ns/op\n", `"BenchmarkThaw-2 100 fast ns/op"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := parseBench(&Record{}, []byte(c.output))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// FuzzParseBench: a program's output crashes nothing, and what is accepted has rows.
func FuzzParseBench(f *testing.F) {
	f.Add([]byte("BenchmarkThaw/10-2 1000 2500 ns/op 48 B/op\n"))
	f.Add([]byte("Benchmark 1 2 3\n"))
	f.Add([]byte("Benchmark/-/ 1 NaN ns/op x"))
	f.Fuzz(func(t *testing.T, output []byte) {
		var r Record
		if err := parseBench(&r, output); err == nil && len(r.Rows) == 0 {
			t.Error("accepted, and has no row")
		}
	})
}
