package doctor

import (
	"bufio"
	"errors"
	"io"
	"strings"

	"rouse/internal/fmt"
)

// Config is a kernel's configuration: options without CONFIG_, "y" or "m" or a value. Those that are off are not in it.
type Config map[string]string

// ErrNoConfig is returned for a text without one option.
var ErrNoConfig = errors.New("no kernel configuration: it holds no line that begins with CONFIG_")

// ReadConfig reads a .config, as kernels are built with and distributions ship in /boot.
func ReadConfig(r io.Reader) (Config, error) {
	c, found := Config{}, false
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		found = found || strings.HasPrefix(strings.TrimPrefix(line, "# "), "CONFIG_")
		name, value, ok := strings.Cut(line, "=")
		if name, ours := strings.CutPrefix(name, "CONFIG_"); ok && ours && value != "n" {
			c[name] = value
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read kernel configuration: %w", err)
	}
	if !found {
		return nil, ErrNoConfig
	}
	return c, nil
}

// Has judges a kernel that was not booted. A way whose options are modules is there: the image has to hold them.
func (c Config) Has(w *Way) (ok bool, missing, modules string) {
	ok = true
	for _, term := range strings.Fields(w.Options) {
		switch value := c.term(term); {
		case value == "":
			ok, missing = false, join(missing, term)
		case value != "y":
			modules = join(modules, value)
		}
	}
	return ok, missing, modules
}

// term is "" if a term does not hold, "y" if it does, else the option that is a module.
func (c Config) term(term string) string {
	if off, negated := strings.CutPrefix(term, "!"); negated {
		if c[off] == "" {
			return "y"
		}
		return ""
	}
	module := ""
	for option := range strings.SplitSeq(term, "|") {
		switch c[option] {
		case "":
		case "m":
			module = join(module, option)
		default:
			return "y"
		}
	}
	return module
}

func join(list, word string) string {
	if list == "" {
		return word
	}
	return list + " " + word
}

// Text is the report for people: what is not in its best way, or all.
func (r *Report) Text(all bool) string {
	text := r.Kernel + ": " + r.Verdict + "\n"
	for _, f := range r.Needs {
		if !all && f.Cost == "" {
			continue
		}
		if f.Chosen == "" {
			f.Chosen = "NOTHING"
		}
		text += "  " + f.Need + ": " + f.Chosen
		if f.Vital {
			text += " (vital)"
		}
		text += "\n"
		for _, line := range [...][2]string{{"missing", f.Missing}, {"modules", f.Modules}, {"cost", f.Cost}} {
			if line[1] != "" {
				text += "      " + line[0] + ": " + line[1] + "\n"
			}
		}
	}
	return text
}
