package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// command is one guest command.
type command struct {
	name, args, help string
	run              func(args []string, out io.Writer) error
}

// commands is the table of guest commands, in the order of the help.
func commands() []command {
	return []command{
		{"status", "[--json]", "state, generation, gate, and what is degraded", ctlStatus},
		{"report", "[--json]", "the last quiesce, thaw or adjust, phase by phase", ctlReport},
		{"services", "[--json]", "services and their states", ctlServices},
		{"watchers", "[--json]", "tracked watchers and who is late", ctlWatchers},
		{"log", "[-n LINES] [SERVICE]", "the last lines of rouse or of a service", ctlLog},
		{"quiesce", "[--timeout D] [--leftovers abort|destroy|keep]", "empty and shut the guest for a snapshot", ctlQuiesce},
		{"release", "", "let a quiesced guest go on, or try a held one again", ctlRelease},
		{"sockets", "[--json] [--wait D]", "what a drain would wait for; status 0 when nothing is left", ctlSockets},
		{"gate", "open|hold|shut|status [--mechanism NAME] [--json] [--force]", "the gate of this network namespace, by hand", ctlGate},
		{"sysgenid", "serve|bump|watchers|wait PATH", "serve the generation device; raise it, list its watchers, wait for them", ctlSysgenid},
		{"vmgenid", "[--tables DIR]", "where the VM generation id is, and its bytes", ctlVMGenID},
		{"poweroff", "", "end the machine", ctlEnd("powerdown")},
		{"reboot", "", "boot again", ctlEnd("reboot")},
		{"halt", "", "stop the processor", ctlEnd("halt")},
		{"version", "", "the version", func(_ []string, out io.Writer) error { fmt.Fprintln(out, version); return nil }},
	}
}

// runCommand runs one guest command.
func runCommand(args []string, out io.Writer) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		usage(out)
		return nil
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(args[1:], out)
		}
	}
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	return fmt.Errorf("%q: no such command; there are %s", args[0], strings.Join(names, ", "))
}

func usage(out io.Writer) {
	fmt.Fprint(out, "rousectl: the guest command of rouse\n\n")
	for _, c := range commands() {
		fmt.Fprintf(out, "  rousectl %s\n        %s\n", strings.TrimSpace(c.name+" "+c.args), c.help)
	}
}

// only checks the number of words.
func only(words []string, least, most int, want string) error {
	if len(words) < least || len(words) > most {
		return errors.New("usage: rousectl " + want)
	}
	return nil
}
