package kmod

import (
	"io"
	"strings"
)

// alias is one line of modules.alias: a pattern over what a device says of itself, and the module that drives it.
type alias struct{ pattern, module string }

func (x *Index) parseAlias(r io.Reader) error {
	return eachLine(r, func(line string) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "alias" {
			x.aliases = append(x.aliases, alias{pattern: f[1], module: canonical(f[2])})
		}
	})
}

// Match returns the modules for a device's modalias (the content of a sysfs file of that name), in the index's
// order, each once. Without aliases read it finds nothing.
func (x *Index) Match(modalias string) []string {
	return x.matchCanonical(canonicalAlias(strings.TrimSpace(modalias)))
}

func (x *Index) matchCanonical(name string) []string {
	var out []string
	seen := map[string]bool{}
	for _, a := range x.aliases {
		if !seen[a.module] && match(a.pattern, name) {
			seen[a.module] = true
			out = append(out, a.module)
		}
	}
	return out
}

// canonicalAlias makes '-' a '_' except inside brackets, where it is a range: depmod wrote the patterns so.
func canonicalAlias(s string) string {
	b := []byte(s)
	inside := false
	for i, c := range b {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == '-' && !inside:
			b[i] = '_'
		}
	}
	return string(b)
}

// match is fnmatch(3) without flags, which is what modules.alias is made for. Unlike path.Match its '*' also
// matches '/', which DMI strings contain. Time is bounded by len(pattern) * len(s).
func match(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0 // the last '*' seen, and how much of s it has swallowed up to
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		if n, ok := matchOne(pattern[p:], s[i]); ok {
			p += n
			i++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne matches one byte against the head of pattern, and returns how long that head is.
func matchOne(pattern string, c byte) (n int, ok bool) {
	if pattern == "" {
		return 0, false
	}
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		if end := strings.IndexByte(pattern[1:], ']'); end > 0 {
			return end + 2, inSet(pattern[1:end+1], c)
		}
	}
	return 1, pattern[0] == c
}

func inSet(set string, c byte) bool {
	want := true
	if set[0] == '!' || set[0] == '^' {
		want, set = false, set[1:]
	}
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			if set[i] <= c && c <= set[i+2] {
				return want
			}
			i += 2
			continue
		}
		if set[i] == c {
			return want
		}
	}
	return !want
}
