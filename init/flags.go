package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"rouse/internal/fmt"
)

// flags are the options of one guest command, as package flag has them, in a twentieth of its size.
type flags struct {
	command string
	list    []*option
}

// option is one of them; set takes its text.
type option struct {
	name, help string
	isBool     bool
	set        func(text string) error
}

// errHelp says that the help was asked for and is in the error's text.
var errHelp = errors.New("")

func newFlags(command string) *flags { return &flags{command: command} }

func (f *flags) add(name, help string, isBool bool, set func(string) error) {
	f.list = append(f.list, &option{name, help, isBool, set})
}

// Bool is on when the option stands alone.
func (f *flags) Bool(name string, value bool, help string) *bool {
	f.add(name, help, true, func(text string) (err error) { value, err = strconv.ParseBool(text); return err })
	return &value
}

func (f *flags) String(name, value, help string) *string {
	f.add(name, help, false, func(text string) error { value = text; return nil })
	return &value
}

func (f *flags) Int(name string, value int, help string) *int {
	f.add(name, help, false, func(text string) (err error) { value, err = strconv.Atoi(text); return err })
	return &value
}

// Duration takes "1m30s", or a number, which is milliseconds.
func (f *flags) Duration(name string, value time.Duration, help string) *time.Duration {
	f.add(name, help, false, func(text string) (err error) {
		if ms, err := strconv.ParseInt(text, 10, 32); err == nil {
			value = time.Duration(ms) * time.Millisecond
			return nil
		}
		value, err = time.ParseDuration(text)
		return err
	})
	return &value
}

// parse takes options before and after the words that are none, so that `gate shut --json` works as
// `gate --json shut` does, and gives back the words. What stands behind "--" are words.
func parse(f *flags, args []string) (words []string, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(words, args[i+1:]...), nil
		}
		if len(arg) < 2 || arg[0] != '-' {
			words = append(words, arg)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if name == "h" || name == "help" {
			return nil, fmt.Errorf("%w%s", errHelp, f.usage())
		}
		o := f.find(name)
		if o == nil {
			return nil, fmt.Errorf("%s: no option %s\n%s", f.command, arg, f.usage())
		}
		if !given && o.isBool {
			value = "true"
		} else if !given {
			if i++; i == len(args) {
				return nil, fmt.Errorf("%s: option %s wants a value: %s", f.command, arg, o.help)
			}
			value = args[i]
		}
		if err := o.set(value); err != nil {
			return nil, fmt.Errorf("%s: option --%s: %q is not what it wants: %s", f.command, name, value, o.help)
		}
	}
	return words, nil
}

func (f *flags) find(name string) *option {
	for _, o := range f.list {
		if o.name == name {
			return o
		}
	}
	return nil
}

func (f *flags) usage() string {
	s := "options of rousectl " + f.command + ":"
	for _, o := range f.list {
		s += "\n  " + "--"[:min(len(o.name), 2)] + o.name + "  " + o.help
	}
	return s
}
