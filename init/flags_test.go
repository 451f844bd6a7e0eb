package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFlags(t *testing.T) {
	f := newFlags("gate")
	asJSON, name := f.Bool("json", false, "print JSON"), f.String("mechanism", "", "which")
	n, wait := f.Int("n", 100, "how many"), f.Duration("wait", 0, "how long")
	words, err := parse(f, []string{"shut", "--json", "-n", "5", "--mechanism=tc", "--wait", "250", "more", "--", "--json"})
	if err != nil || !slices.Equal(words, []string{"shut", "more", "--json"}) {
		t.Errorf("words %q, %v", words, err)
	}
	if !*asJSON || *name != "tc" || *n != 5 || *wait != 250*time.Millisecond {
		t.Errorf("%v %q %d %v", *asJSON, *name, *n, *wait)
	}
}

func TestFlagsRefuse(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--jsn", "no option --jsn"},
		{"-n", "wants a value: how many"},
		{"-n many", `"many" is not what it wants: how many`},
		{"--json=maybe", `"maybe"`},
	} {
		f := newFlags("log")
		f.Bool("json", false, "print JSON")
		f.Int("n", 0, "how many")
		if _, err := parse(f, strings.Fields(tt.args)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
	if _, err := parse(newFlags("log"), []string{"--help"}); !errors.Is(err, errHelp) {
		t.Errorf("help: %v", err)
	}
}

func TestUnknownCommand(t *testing.T) {
	var out strings.Builder
	if err := runCommand([]string{"melt"}, &out); err == nil || !strings.Contains(err.Error(), "status, doctor, report") {
		t.Errorf("error %v, want the commands that there are", err)
	}
	if err := runCommand(nil, &out); err != nil || !strings.Contains(out.String(), "rousectl quiesce") {
		t.Errorf("help: %v, %s", err, out.String())
	}
}
