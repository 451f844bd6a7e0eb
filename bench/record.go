package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Row is what was measured of one case: the values of all repetitions.
type Row struct {
	Case   string    `json:"case"`
	N      int       `json:"n,omitempty"` // what it grows with; 0 where it does not
	Metric string    `json:"metric"`
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
}

// Record is one run of one suite, as it is kept.
type Record struct {
	Suite   string    `json:"suite"`
	When    time.Time `json:"when"`
	Machine string    `json:"machine"`
	Quick   bool      `json:"quick"` // few repetitions: says that it works, not how fast
	LeftOut []string  `json:"left-out,omitempty"`
	Rows    []Row     `json:"rows"`
}

// add appends a value to its row, which it makes.
func (r *Record) add(name string, n int, metric, unit string, value float64) {
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Case == name && row.N == n && row.Metric == metric {
			row.Values = append(row.Values, value)
			return
		}
	}
	r.Rows = append(r.Rows, Row{name, n, metric, unit, []float64{value}})
}

// leaveOut says what this machine cannot measure, and why.
func (r *Record) leaveOut(format string, args ...any) {
	r.LeftOut = append(r.LeftOut, fmt.Sprintf(format, args...))
}

func (r *Record) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Suite+".json"), append(text, '\n'), 0o644)
}

// load reads all records that a folder holds.
func load(dir string) (map[string]*Record, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	all := map[string]*Record{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		r := &Record{}
		if err := json.Unmarshal(text, r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[r.Suite] = r
	}
	return all, nil
}

// median of the repetitions; of an even number the mean of the two in the middle.
func (r *Row) median() float64 {
	v := slices.Sorted(slices.Values(r.Values))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// spread is the least and the greatest value.
func (r *Row) spread() (least, most float64) { return slices.Min(r.Values), slices.Max(r.Values) }
