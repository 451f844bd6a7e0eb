package rootfs

import (
	"os"
	"strings"
)

// Cmdline is the kernel command line, /proc/cmdline, as [ParseCmdline] reads it. It is empty if /proc is not mounted.
func Cmdline() map[string][]string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return map[string][]string{}
	}
	return ParseCmdline(string(b))
}

// ParseCmdline splits a kernel command line as the kernel does (lib/cmdline.c next_arg, v6.12): parameters are
// separated by white space outside double quotes; a quote may open before the name or before the value
// (name="a b", "name=a b") and is not part of it. Values of a repeated name stand in order, so that the
// last one wins where there can be only one. A name without '=' has the value "". A lone "--", behind
// which the kernel passes words on to init, is dropped and those words are read like all others.
func ParseCmdline(line string) map[string][]string {
	out := map[string][]string{}
	for _, word := range splitCmdline(line) {
		if word == "--" {
			continue
		}
		name, value := parseParameter(word)
		if name != "" {
			out[name] = append(out[name], value)
		}
	}
	return out
}

func splitCmdline(line string) []string {
	quoted := false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && strings.ContainsRune(" \t\n\v\f\r", r)
	})
}

func parseParameter(word string) (name, value string) {
	whole, quoted := strings.CutPrefix(word, `"`)
	name, value, found := strings.Cut(whole, "=")
	if inner, ok := strings.CutPrefix(value, `"`); ok {
		return name, strings.TrimSuffix(inner, `"`)
	}
	if !quoted {
		return name, value
	}
	if !found {
		return strings.TrimSuffix(name, `"`), ""
	}
	return name, strings.TrimSuffix(value, `"`)
}

// Parameters are the values of "module.parameter=value" in a kernel command line, for one module, as
// finit_module(2) takes them. In the module's name '-' and '_' are the same, as for the kernel.
func Parameters(cmdline map[string][]string, module string) string {
	var out []string
	for _, key := range sortedKeys(cmdline) {
		m, parameter, ok := strings.Cut(key, ".")
		if !ok || strings.ReplaceAll(m, "-", "_") != module {
			continue
		}
		for _, v := range cmdline[key] {
			out = append(out, parameterWord(parameter, v))
		}
	}
	return strings.Join(out, " ")
}

func parameterWord(name, value string) string {
	switch {
	case value == "":
		return name
	case strings.ContainsAny(value, " \t"):
		return name + `="` + value + `"`
	}
	return name + "=" + value
}
