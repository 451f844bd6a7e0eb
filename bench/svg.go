package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Plots are drawn here: a bar or a line and its label need no library.

const (
	plotWidth  = 720
	labelWidth = 190
	barHeight  = 22
)

// colours of lines and bars; the first is rouse's.
var colours = []string{"#0b6e4f", "#8d99ae", "#d1495b", "#edae49", "#5d576b", "#3d5a80", "#bc6c25"}

// bar is one case.
type bar struct {
	label              string
	value, least, most float64
	ours               bool
}

// bars draws cases on a logarithmic scale, for what is compared differs by orders of magnitude.
func bars(title, unit string, list []bar) string {
	low, high := math.Inf(1), 0.0
	for _, b := range list {
		low, high = min(low, b.least), max(high, b.most)
	}
	if low <= 0 {
		low = high / 1e6
	}
	low, high = decades(low, high)
	x := func(v float64) float64 {
		at := (math.Log10(max(v, low)) - math.Log10(low)) / (math.Log10(high) - math.Log10(low))
		return labelWidth + at*(plotWidth-labelWidth-90)
	}
	height := 60 + barHeight*len(list)
	s := svgHead(height, title+" ("+unit+", logarithmic)")
	for v := low; v <= high*1.001; v *= 10 {
		s += fmt.Sprintf(`<line x1="%.1f" y1="34" x2="%.1f" y2="%d" stroke="#ddd"/><text x="%.1f" y="%d" class="tick">%s</text>`+"\n",
			x(v), x(v), height-22, x(v), height-8, short(v))
	}
	for i, b := range list {
		y, colour := 38+i*barHeight, colours[1]
		if b.ours {
			colour = colours[0]
		}
		s += fmt.Sprintf(`<text x="%d" y="%d" class="name">%s</text><rect x="%d" y="%d" width="%.1f" height="14" fill="%s"/>`,
			labelWidth-8, y+12, escape(b.label), labelWidth, y, max(1, x(b.value)-labelWidth), colour)
		s += fmt.Sprintf(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#222"/><text x="%.1f" y="%d" class="value">%s</text>`+"\n",
			x(b.least), y+7, x(b.most), y+7, x(b.most)+5, y+12, short(b.value))
	}
	return s + "</svg>\n"
}

// decades widens a range to whole powers of ten. Where nothing above zero was measured there is one to show
// all the same: a logarithmic scale has no zero.
func decades(low, high float64) (float64, float64) {
	if !(low > 0 && high >= low) || math.IsInf(high, 0) {
		return 1, 10
	}
	return math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.001)))
}

// series is one line of growth.
type series struct {
	label string
	n     []int
	value []float64
}

// lines draws growth, both scales logarithmic: what is linear has the slope of the grey diagonals.
func lines(title, unit string, list []series) string {
	nLow, nHigh, low, high := math.Inf(1), 0.0, math.Inf(1), 0.0
	for _, l := range list {
		for i := range l.n {
			nLow, nHigh = min(nLow, float64(max(1, l.n[i]))), max(nHigh, float64(l.n[i]))
			if l.value[i] > 0 {
				low, high = min(low, l.value[i]), max(high, l.value[i])
			}
		}
	}
	low, high = decades(low, high)
	const top, bottom, left, right = 34.0, 300.0, 70.0, 520.0
	scale := func(v, a, b, from, to float64) float64 {
		if a == b {
			return from
		}
		return from + (math.Log10(max(v, a))-math.Log10(a))/(math.Log10(b)-math.Log10(a))*(to-from)
	}
	x := func(v float64) float64 { return scale(v, nLow, nHigh, left, right) }
	y := func(v float64) float64 { return scale(v, low, high, bottom, top) }
	s := svgHead(330, title+" ("+unit+", both scales logarithmic)")
	for v := low; v <= high*1.001; v *= 10 {
		s += fmt.Sprintf(`<line x1="%.0f" y1="%.1f" x2="%.0f" y2="%.1f" stroke="#ddd"/><text x="%.0f" y="%.1f" class="name">%s</text>`+"\n",
			left, y(v), right, y(v), left-6, y(v)+4, short(v))
	}
	for v := nLow; v <= nHigh*1.001; v *= 10 {
		s += fmt.Sprintf(`<text x="%.1f" y="318" class="tick">%s</text>`+"\n", x(v), short(v))
	}
	for i, l := range list {
		var points []string
		for j := range l.n {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(float64(max(1, l.n[j]))), y(max(low, l.value[j]))))
		}
		colour := colours[i%len(colours)]
		s += fmt.Sprintf(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/><text x="%.0f" y="%d" class="key" fill="%s">%s</text>`+"\n",
			strings.Join(points, " "), colour, right+12, 50+i*18, colour, escape(l.label))
	}
	return s + "</svg>\n"
}

func svgHead(height int, title string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">
<style>text{font:12px sans-serif;fill:#222}.name{text-anchor:end}.tick{text-anchor:middle;fill:#666}.title{font-weight:bold}.key{font-weight:bold}</style>
<rect width="100%%" height="100%%" fill="white"/>
<text x="12" y="20" class="title">%s</text>
`, plotWidth, height, plotWidth, height, escape(title))
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// short writes a number with three digits that count.
func short(v float64) string {
	units := []struct {
		from float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}}
	i := slices.IndexFunc(units, func(u struct {
		from float64
		name string
	}) bool {
		return v >= u.from
	})
	if i >= 0 {
		return fmt.Sprintf("%.3g%s", v/units[i].from, units[i].name)
	}
	return fmt.Sprintf("%.3g", v)
}
