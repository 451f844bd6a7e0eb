package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rouse/quiesce"
	"rouse/vmm"
)

type reportCommand struct {
	Source string `arg:"" default:"-" help:"Snapshot folder, or file with reports: as rouse-report answers, as rousectl report --json or rouse clone --json print; - is standard input."`
	SVG    string `name:"svg" placeholder:"FILE" help:"Draw the last report as a picture; - is standard output."`
	HTML   string `name:"html" placeholder:"FILE" help:"Draw all reports into one page; - is standard output."`
}

// Run draws, or prints lines for people.
func (c *reportCommand) Run(s *session) error {
	text, err := c.read()
	if err != nil {
		return err
	}
	reports, err := findReports(text)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Source, err)
	}
	if c.SVG != "" {
		err = s.write(c.SVG, picture(reports[len(reports)-1]))
	}
	if c.HTML != "" {
		err = errors.Join(err, s.write(c.HTML, page(reports)))
	}
	if err != nil || c.SVG != "" || c.HTML != "" {
		return err
	}
	for _, r := range reports {
		if err := s.emit(r, asText(r)); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) write(path, text string) error {
	if path == "-" {
		_, err := io.WriteString(s.out, text)
		return err
	}
	return replaceFile(path, func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
}

func (c *reportCommand) read() ([]byte, error) {
	if c.Source == "-" {
		return io.ReadAll(os.Stdin)
	}
	if info, err := os.Stat(c.Source); err == nil && info.IsDir() {
		return os.ReadFile(filepath.Join(c.Source, vmm.ManifestFile))
	}
	return os.ReadFile(c.Source)
}

// findReports reads JSON values one after the other; each is a report, an array of them, or holds one as
// "report" or "return".
func findReports(text []byte) ([]quiesce.Report, error) {
	var all []quiesce.Report
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var v json.RawMessage
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("no report: %w", err)
		}
		all = append(all, reportsIn(v)...)
	}
	if len(all) == 0 {
		return nil, errors.New("no report in it; want one as rouse-report answers, or a snapshot folder")
	}
	return all, nil
}

func reportsIn(v json.RawMessage) []quiesce.Report {
	var list []json.RawMessage
	if json.Unmarshal(v, &list) == nil {
		var all []quiesce.Report
		for _, e := range list {
			all = append(all, reportsIn(e)...)
		}
		return all
	}
	var r quiesce.Report
	if json.Unmarshal(v, &r) == nil && r.Kind != "" {
		return []quiesce.Report{r}
	}
	var around struct{ Report, Return json.RawMessage }
	if json.Unmarshal(v, &around) != nil {
		return nil
	}
	for _, inner := range []json.RawMessage{around.Report, around.Return} {
		if len(inner) > 0 && string(inner) != "null" {
			return reportsIn(inner)
		}
	}
	return nil
}

// textWidth is how many characters the longest bar has.
const textWidth = 40

// asText is the picture for a terminal.
func asText(r quiesce.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", headline(r))
	if more := subline(r); more != "" {
		fmt.Fprintf(&b, "%s\n", more)
	}
	total := max(span(r), 1)
	for _, p := range r.Phases {
		at := column(sane(p.StartNS)-begin(r), total)
		width := min(max(1, column(p.DurationNS, total)), textWidth-at+1)
		fmt.Fprintf(&b, "  %-10s %s%s%s %10v  %s\n", p.Name, strings.Repeat(" ", at), strings.Repeat("#", width),
			strings.Repeat(" ", textWidth+1-at-width), time.Duration(p.DurationNS).Round(10*time.Microsecond), p.Error)
	}
	return strings.TrimRight(b.String(), "\n")
}

// column is where a time falls on the bar.
func column(ns, total int64) int {
	return int(max(0, min(float64(ns)/float64(total), 1)) * textWidth)
}
