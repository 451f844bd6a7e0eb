package main

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"

	"rouse/quiesce"
)

// Measures of the picture, in pixels.
const (
	rowHeight  = 24
	barHeight  = 14
	leftMargin = 90
	plotWidth  = 620
	rightSpace = 90
	headHeight = 58
	minBar     = 2 // a phase of microseconds is seen too
)

// Colours are chosen to be told apart by those who see no red or green too (Okabe and Ito).
const (
	colourOpen  = "#009e73"
	colourHold  = "#e69f00"
	colourShut  = "#0072b2"
	colourError = "#d55e00"
	colourText  = "#24292f"
	colourGrid  = "#d0d7de"
)

// picture is a report as SVG: the gate on top, one row for each phase below it.
func picture(r quiesce.Report) string {
	rows := len(r.Phases) + 1
	height := headHeight + rows*rowHeight + 34
	width := leftMargin + plotWidth + rightSpace
	p := &plot{scale: plotWidth / max(float64(span(r)), 1), begin: begin(r)}
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="12" fill="%s" role="img">`,
		width, height, width, height, colourText)
	p.printf(`<title>%s</title><rect width="100%%" height="100%%" rx="6" fill="#ffffff"/>`, html.EscapeString(headline(r)))
	p.printf(`<text x="12" y="24" font-size="15" font-weight="600">%s</text>`, html.EscapeString(headline(r)))
	p.printf(`<text x="12" y="42">%s</text>`, html.EscapeString(subline(r)))
	p.axis(span(r), headHeight, rows*rowHeight)
	p.gate(r, headHeight)
	for i, phase := range r.Phases {
		p.phase(phase, headHeight+(i+1)*rowHeight)
	}
	p.printf("</svg>\n")
	return p.b.String()
}

type plot struct {
	b     strings.Builder
	scale float64 // pixels a nanosecond
	begin int64
}

func (p *plot) printf(format string, args ...any) { fmt.Fprintf(&p.b, format, args...) }

func (p *plot) x(ns int64) float64 { return leftMargin + float64(ns-p.begin)*p.scale }

// sane keeps times that no clock has told from overflowing: within 30 years either way.
func sane(ns int64) int64 { return max(-1e18, min(ns, 1e18)) }

// begin is the start of the first phase or of the report, whichever is first.
func begin(r quiesce.Report) int64 {
	first := sane(r.StartNS)
	for _, p := range r.Phases {
		first = min(first, sane(p.StartNS))
	}
	return first
}

// span is how long all of it took.
func span(r quiesce.Report) int64 {
	end := sane(r.StartNS) + sane(r.DurationNS)
	for _, p := range r.Phases {
		end = max(end, sane(p.StartNS)+sane(p.DurationNS))
	}
	return max(end-begin(r), 0)
}

func headline(r quiesce.Report) string {
	return fmt.Sprintf("%s: %s in %s", r.Kind, r.Outcome, millis(r.DurationNS))
}

func subline(r quiesce.Report) string {
	var parts []string
	if r.Kind == "adjust" {
		parts = append(parts, fmt.Sprintf("generation %d, %d inherited connections severed", r.Generation, r.Severed))
	}
	if r.Uncontrolled {
		parts = append(parts, "uncontrolled: unguarded for at most "+millis(r.UnguardedNS))
	}
	if len(r.Late) > 0 {
		parts = append(parts, fmt.Sprintf("%d late watchers", len(r.Late)))
	}
	if len(r.Leftovers) > 0 {
		parts = append(parts, fmt.Sprintf("%d sockets not empty", len(r.Leftovers)))
	}
	if r.Reason != "" {
		parts = append(parts, r.Reason)
	}
	return strings.Join(parts, "; ")
}

func millis(ns int64) string {
	switch d := time.Duration(ns); {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(ns)/1e6)
	case d < 10*time.Second:
		return fmt.Sprintf("%.0f ms", float64(ns)/1e6)
	default:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
}

// axis draws lines at round times.
func (p *plot) axis(total int64, y, height int) {
	step := roundStep(total)
	for i := int64(0); i <= min(total/step, 10); i++ {
		at := i * step
		x := p.x(p.begin + at)
		p.printf(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`, x, y, x, y+height, colourGrid)
		p.printf(`<text x="%.1f" y="%d" text-anchor="middle" font-size="11">%s</text>`, x, y+height+16, label(at, step))
	}
}

// roundStep gives 4 to 10 lines at 1, 2 or 5 times a power of ten.
func roundStep(total int64) int64 {
	if total < 10 {
		return 10
	}
	power := int64(math.Pow(10, math.Floor(math.Log10(float64(total)/4))))
	for _, factor := range []int64{5, 2, 1} {
		if total/(factor*power) >= 4 {
			return max(factor*power, 1)
		}
	}
	return max(power, 1)
}

func label(at, step int64) string {
	if step < int64(time.Millisecond) {
		return fmt.Sprintf("%g ms", float64(at)/1e6)
	}
	if step >= int64(time.Second) {
		return fmt.Sprintf("%d s", at/int64(time.Second))
	}
	return fmt.Sprintf("%d ms", at/int64(time.Millisecond))
}

// section is a state of the gate for a time.
type section struct {
	name, colour string
	from, to     int64
}

// gateOf derives the gate's states: a phase named after a state has set it when it ends, and an undone quiesce ends
// open.
func gateOf(r quiesce.Report) []section {
	end := begin(r) + span(r)
	now := section{"open", colourOpen, begin(r), end}
	if r.Kind != "quiesce" {
		now.name, now.colour = "shut", colourShut
	}
	var list []section
	turn := func(name, colour string, at int64) {
		if now.name == name {
			return
		}
		now.to = at
		list = append(list, now)
		now = section{name, colour, at, end}
	}
	for _, p := range r.Phases {
		if p.Error != "" {
			continue
		}
		switch p.Name {
		case "hold":
			turn("hold", colourHold, p.StartNS+p.DurationNS)
		case "shut":
			turn("shut", colourShut, p.StartNS+p.DurationNS)
		case "open":
			turn("open", colourOpen, p.StartNS+p.DurationNS)
		}
	}
	return append(list, now)
}

func (p *plot) gate(r quiesce.Report, y int) {
	p.rowLabel("gate", y)
	for _, s := range gateOf(r) {
		width := max(float64(s.to-s.from)*p.scale, minBar)
		p.printf(`<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" fill-opacity="0.35"><title>gate %s for %s</title></rect>`,
			p.x(s.from), y+(rowHeight-barHeight)/2, width, barHeight, s.colour, s.name, millis(s.to-s.from))
		if width > 36 {
			p.printf(`<text x="%.1f" y="%d" font-size="11">%s</text>`, p.x(s.from)+4, y+rowHeight/2+4, s.name)
		}
	}
}

func (p *plot) rowLabel(name string, y int) {
	p.printf(`<text x="%d" y="%d" text-anchor="end">%s</text>`, leftMargin-8, y+rowHeight/2+4, html.EscapeString(name))
}

func (p *plot) phase(phase quiesce.Phase, y int) {
	p.rowLabel(phase.Name, y)
	colour := colourShut
	if phase.Error != "" {
		colour = colourError
	}
	width := max(float64(phase.DurationNS)*p.scale, minBar)
	x := p.x(phase.StartNS)
	p.printf(`<rect x="%.1f" y="%d" width="%.1f" height="%d" rx="2" fill="%s"><title>%s</title></rect>`,
		x, y+(rowHeight-barHeight)/2, width, barHeight, colour, html.EscapeString(strings.TrimSpace(phase.Name+" "+millis(phase.DurationNS)+" "+phase.Error)))
	p.printf(`<text x="%.1f" y="%d" font-size="11">%s</text>`, x+width+5, y+rowHeight/2+4, millis(phase.DurationNS))
}

// page is reports as one HTML file that needs nothing else.
func page(reports []quiesce.Report) string {
	var b strings.Builder
	b.WriteString("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>rouse reports</title>\n" +
		"<style>body{font-family:system-ui,sans-serif;max-width:56rem;margin:2rem auto;color:#24292f}svg{max-width:100%;height:auto}" +
		"table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #d0d7de;text-align:left;vertical-align:top}</style></head><body>\n")
	for _, r := range reports {
		b.WriteString(picture(r))
		b.WriteString("<table>\n")
		for _, p := range r.Phases {
			fmt.Fprintf(&b, "<tr><td>%s</td><td>%s</td><td>%s</td></tr>\n", html.EscapeString(p.Name), millis(p.DurationNS), html.EscapeString(p.Error))
		}
		b.WriteString("</table>\n")
		list(&b, "Warnings", r.Warnings)
		var late []string
		for _, w := range r.Late {
			late = append(late, fmt.Sprintf("%s in service %s, process %d", w.Command, w.Service, w.PID))
		}
		list(&b, "Late watchers", late)
	}
	b.WriteString("</body></html>\n")
	return b.String()
}

func list(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "<p>%s</p><ul>\n", title)
	for _, l := range lines {
		fmt.Fprintf(b, "<li>%s</li>\n", html.EscapeString(l))
	}
	b.WriteString("</ul>\n")
}
