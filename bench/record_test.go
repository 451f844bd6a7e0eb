package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMedianAndSpread(t *testing.T) {
	for _, c := range []struct {
		values              []float64
		median, least, most float64
	}{
		{[]float64{7}, 7, 7, 7},
		{[]float64{9, 1, 5}, 5, 1, 9},
		{[]float64{4, 1, 3, 100}, 3.5, 1, 100},
		{[]float64{-1, 0}, -0.5, -1, 0},
	} {
		row := Row{Values: c.values}
		before := append([]float64(nil), c.values...)
		least, most := row.spread()
		if m := row.median(); m != c.median || least != c.least || most != c.most {
			t.Errorf("%v: %v %v %v", c.values, m, least, most)
		}
		if !reflect.DeepEqual(before, c.values) {
			t.Errorf("the order of measuring is lost: %v, was %v", c.values, before)
		}
	}
	if m := (&Row{}).median(); m != 0 {
		t.Errorf("nothing measured has the median %v", m)
	}
}

func TestAddKeepsRowsApart(t *testing.T) {
	var r Record
	r.add("a", 1, "time", "ms", 1)
	r.add("a", 1, "time", "ms", 2)
	r.add("a", 2, "time", "ms", 3)
	r.add("a", 1, "cpu", "ms", 4)
	r.add("b", 1, "time", "ms", 5)
	if len(r.Rows) != 4 || len(r.Rows[0].Values) != 2 {
		t.Errorf("%+v", r.Rows)
	}
	if r.find("b", 2, "time") != nil || r.find("b", 1, "time").Values[0] != 5 {
		t.Error("find")
	}
}

func TestSaveLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b") // made by save
	want := map[string]*Record{}
	for _, name := range []string{"gate", "init"} {
		r := &Record{Suite: name, When: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Machine: "2 x <CPU>", Quick: name == "init"}
		r.add("case", 50, "time", "ms", 1.25)
		r.add("case", 50, "time", "ms", 1e-9)
		want[name] = r
		if err := r.save(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := load(dir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: %+v, want %+v", err, got, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "half.json"), []byte(`{"suite":"half"`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := load(dir); err == nil || !strings.Contains(err.Error(), "half.json") {
		t.Errorf("half a record: %v", err)
	}
}

// find is a row, nil if it was not measured.
func (r *Record) find(name string, n int, metric string) *Row {
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Case == name && row.N == n && row.Metric == metric {
			return row
		}
	}
	return nil
}
