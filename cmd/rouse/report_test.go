package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rouse/quiesce"
)

const quiesceReport = `{"version":1,"kind":"quiesce","outcome":"ready","start-ns":1000,"duration-ns":90000000,"phases":[
 {"name":"hooks","start-ns":1000,"duration-ns":10},{"name":"hold","start-ns":2000,"duration-ns":5000000},
 {"name":"drain","start-ns":5100000,"duration-ns":60000000},{"name":"shut","start-ns":65200000,"duration-ns":6000000},
 {"name":"freeze","start-ns":72000000,"duration-ns":18000000,"error":"a < b & \"c\""}]}`

const adjustReport = `{"version":1,"kind":"adjust","outcome":"held","reason":"late","generation":2,"severed":3,"start-ns":0,"duration-ns":200,
 "phases":[{"name":"shut","start-ns":0,"duration-ns":100},{"name":"wait","start-ns":100,"duration-ns":100,"error":"watchers are late"}],
 "late":[{"pid":7,"command":"<web>","service":"web"}],"warnings":["w&w"]}`

// wellFormed parses XML to its end.
func wellFormed(t *testing.T, text string) (elements map[string]int) {
	t.Helper()
	elements = map[string]int{}
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return elements
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if e, ok := token.(xml.StartElement); ok {
			elements[e.Name.Local]++
		}
	}
}

func TestFindReports(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want string
	}{
		"one":      {quiesceReport, "quiesce"},
		"two":      {quiesceReport + "\n" + adjustReport, "quiesce adjust"},
		"array":    {"[" + quiesceReport + "," + adjustReport + "]", "quiesce adjust"},
		"manifest": {`{"version":2,"report":` + quiesceReport + `}`, "quiesce"},
		"answer":   {`{"return":` + adjustReport + `,"id":1}`, "adjust"},
		"clones":   {`{"clone":0,"report":` + adjustReport + `}` + "\n" + `{"clone":1,"report":` + adjustReport + `}`, "adjust adjust"},
	} {
		all, err := findReports([]byte(tt.text))
		var kinds []string
		for _, r := range all {
			kinds = append(kinds, r.Kind)
		}
		if err != nil || strings.Join(kinds, " ") != tt.want {
			t.Errorf("%s: %q, %v", name, kinds, err)
		}
	}
	for _, bad := range []string{"", "x", "{}", "5", "null", `{"report":null}`, `{"report":[]}`} {
		if _, err := findReports([]byte(bad)); err == nil {
			t.Errorf("%q has a report", bad)
		}
	}
}

func TestPicture(t *testing.T) {
	reports, err := findReports([]byte(quiesceReport + adjustReport))
	if err != nil {
		t.Fatal(err)
	}
	svg := picture(reports[0])
	// One bar for each phase, three sections of the gate, the ground.
	if n := wellFormed(t, svg)["rect"]; n != 5+3+1 {
		t.Errorf("%d rectangles", n)
	}
	for _, want := range []string{"quiesce: ready in 90 ms", "a &lt; b &amp;", colourError, ">hold<", ">shut<", ">0 ms<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in it", want)
		}
	}
	if n := wellFormed(t, picture(quiesce.Report{}))["svg"]; n != 1 {
		t.Error("an empty report is no picture")
	}
	html := page(reports)
	for _, want := range []string{"<svg", "&lt;web&gt; in service web", "w&amp;w", "generation 2, 3 inherited"} {
		if !strings.Contains(html, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if text := asText(reports[0]); !strings.Contains(text, "drain") || !strings.Contains(text, "####") || strings.Count(text, "\n") != 5 {
		t.Error(text)
	}
}

func TestGateOf(t *testing.T) {
	reports, err := findReports([]byte(quiesceReport + adjustReport))
	if err != nil {
		t.Fatal(err)
	}
	names := func(r quiesce.Report) string {
		var list []string
		for _, s := range gateOf(r) {
			list = append(list, s.name)
		}
		return strings.Join(list, " ")
	}
	if got := names(reports[0]); got != "open hold shut" {
		t.Error(got)
	}
	if got := names(reports[1]); got != "shut" {
		t.Errorf("a held adjust: %s", got)
	}
}

func TestRoundStep(t *testing.T) {
	for _, total := range []int64{0, 9, 10, 99, 12345, 90_000_000, 7_000_000_000, 1 << 62} {
		step := roundStep(total)
		if lines := total / step; step < 1 || lines > 10 || total >= 100 && lines < 4 {
			t.Errorf("%d: step %d", total, step)
		}
	}
}

func TestReportCommand(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(`{"report":`+quiesceReport+`}`), 0o644); err != nil {
		t.Fatal(err)
	}
	svg, html := filepath.Join(dir, "a.svg"), filepath.Join(dir, "a.html")
	var out, diag bytes.Buffer
	if err := run([]string{"report", dir, "--svg", svg, "--html", html}, &out, &diag); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{svg, html} {
		if text, err := os.ReadFile(file); err != nil || !bytes.Contains(text, []byte("<svg")) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := run([]string{"report", dir, "--svg", "-"}, &out, &diag); err != nil || !strings.HasPrefix(out.String(), "<svg") {
		t.Errorf("%v, %s", err, out.String())
	}
	if err := run([]string{"report", svg}, &out, &diag); err == nil || !strings.Contains(err.Error(), "no report") {
		t.Errorf("%v", err)
	}
}

func FuzzPicture(f *testing.F) {
	f.Add([]byte(quiesceReport))
	f.Add([]byte(adjustReport))
	f.Add([]byte(`{"kind":"x","start-ns":-9223372036854775808,"duration-ns":9223372036854775807,"phases":[{"start-ns":9223372036854775807,"duration-ns":-5}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		reports, err := findReports(text)
		if err != nil {
			return
		}
		for _, r := range reports {
			picture(r)
			asText(r)
		}
		page(reports)
	})
}
