package main

import (
	"maps"
	"strings"
	"testing"

	"rouse/quiesce"
)

func TestAddFreeze(t *testing.T) {
	type key struct {
		name   string
		n      int
		metric string
	}
	for _, c := range []struct {
		name, line string
		want       map[key]float64
		bad        bool
	}{
		{name: "console", line: "systemd[1]: Started\tprobe"},
		{name: "agent, one size", line: "FREEZE\tqemu-ga\t0\t4\tfreeze\t1.5", want: map[key]float64{{"qemu-ga", 0, "freeze"}: 1.5, {"qemu-ga", 4, "freeze file systems"}: 1.5}},
		{name: "agent, growth", line: "FREEZE\tqemu-ga\t0\t16\tthaw\t2", want: map[key]float64{{"qemu-ga", 16, "thaw file systems"}: 2}},
		{name: "units, one size", line: "FREEZE\tsystemd\t10\t0\tthaw\t3", want: map[key]float64{{"systemd", 0, "thaw"}: 3, {"systemd", 10, "thaw services"}: 3}},
		{name: "units, growth", line: "FREEZE\tsystemctl\t50\t0\tfreeze\t4", want: map[key]float64{{"systemctl", 50, "freeze services"}: 4}},
		{name: "cut off", line: "FREEZE\tsystemd\t10\t0", bad: true},
		{name: "no number", line: "FREEZE\tsystemd\tten\t0\tthaw\t3", bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Record{}
			if err := addFreeze(r, c.line); (err != nil) != c.bad {
				t.Fatal(err)
			}
			got := map[key]float64{}
			for _, row := range r.Rows {
				got[key{row.Case, row.N, row.Metric}] = row.median()
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// TestAddPhases: a phase that was done twice counts twice, and each sum is in its own growth.
func TestAddPhases(t *testing.T) {
	r := &Record{}
	report := &quiesce.Report{DurationNS: 9e6, Phases: []quiesce.Phase{{Name: "drain", DurationNS: 1e6}, {Name: "settle", DurationNS: 2e6},
		{Name: "drain", DurationNS: 1e6}, {Name: "freeze", DurationNS: 3e6}, {Name: "sync", DurationNS: 5e5}}}
	addPhases(r, "freeze", freezeServices, freezeFilesystems, report, 0.5)
	for _, c := range []struct {
		name   string
		n      int
		metric string
		want   float64
	}{
		{"rouse, the whole", 0, "freeze", 9.5}, {"rouse: drain", 0, "freeze", 2}, {"rouse: sync", 0, "freeze", 0.5},
		{"rouse", freezeServices, "freeze services", 5}, {"rouse", freezeFilesystems, "freeze file systems", 0.5},
	} {
		if row := r.find(c.name, c.n, c.metric); row == nil || row.median() != c.want {
			t.Errorf("%s, %d, %s: %v, want %v", c.name, c.n, c.metric, row, c.want)
		}
	}
}

func TestParseProcTCP(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
	row := func(state, queues string) string {
		return "   0: 0100007F:1B58 00000000:0000 " + state + " " + queues + " 00:00000000 00000000     0        0 1 1\n"
	}
	for _, c := range []struct {
		name, text string
		rows, busy int
		bad        bool
	}{
		{name: "nothing", text: head},
		{name: "idle", text: head + row("01", "00000000:00000000"), rows: 1},
		{name: "unread", text: head + row("01", "00000000:00000010"), rows: 1, busy: 1},
		{name: "unsent", text: head + row("04", "00000010:00000000") + row("01", "00000000:00000000"), rows: 2, busy: 1},
		{name: "a listener's queue", text: head + row("0A", "00000000:00000003"), rows: 1},
		{name: "cut off", text: head + "   0: 0100007F", bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, busy, err := parseProcTCP([]byte(c.text))
			if rows != c.rows || busy != c.busy || (err != nil) != c.bad {
				t.Errorf("%d rows, %d busy, %v", rows, busy, err)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		only string
		n    int
		bad  string
	}{{"", len(suites()), ""}, {"init", 1, ""}, {"idle,init", 2, ""}, {"init,nothing", 0, "nothing"}} {
		list, err := choose(c.only)
		if len(list) != c.n || (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%q: %d suites, %v", c.only, len(list), err)
		}
	}
}

// FuzzLines: what a worker or a guest's console says is never more than an error, and what is taken can be shown.
func FuzzLines(f *testing.F) {
	f.Add("FREEZE\tqemu-ga\t0\t4\tfreeze\t1.5")
	f.Add("rouse\t10\tlook\tms\t0.5")
	f.Add("BENCH handover 12 us")
	f.Fuzz(func(t *testing.T, line string) {
		r := &Record{}
		before := 0
		if addFreeze(r, line) != nil && len(r.Rows) != before {
			t.Error("an error, and rows all the same")
		}
		before = len(r.Rows)
		if addResult(r, line) != nil && len(r.Rows) != before {
			t.Error("an error, and a row all the same")
		}
		for _, row := range r.Rows {
			if len(row.Values) == 0 {
				t.Errorf("%v has no value", row)
			}
		}
	})
}
