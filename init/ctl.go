package main

import (
	"errors"
	"io"
	"strings"

	"rouse/internal/fmt"
)

// command is one guest command. Its options are known to its own run alone, which tells them when it is asked
// for help: all of them parse their arguments before they do anything.
type command struct {
	name, args, help string
	run              func(args []string, out io.Writer) error
}

// commands is the table of guest commands, in the order of the help.
func commands() []command {
	return []command{
		{"status", "[--json]", "state, generation, gate, and what is degraded", ctlStatus},
		{"doctor", "[--all] [--json]", "what this kernel offers, and what its lacks cost; status 0: snapshots are safe here", ctlDoctor},
		{"report", "[N] [--list] [--json]", "the last quiesce, thaw or adjust, phase by phase; 2 is the one before it", ctlReport},
		{"config", "[--json]", "the configuration, and where each value came from", ctlList("config", "rouse-config", "key value from")},
		{"services", "[--json]", "services and their states", ctlList("services", "rouse-services", "name state pid restarts health reason")},
		{"start", "SERVICE [--json]", "start a service and wait until it is ready", ctlService("start")},
		{"stop", "SERVICE [--json]", "stop a service", ctlService("stop")},
		{"restart", "SERVICE [--json]", "stop a service and start it again", ctlService("restart")},
		{"signal", "SERVICE SIGNAL [--json]", "send a signal to a service's main process", ctlService("signal")},
		{"exec", "SERVICE [--] COMMAND [ARGUMENT...]", "run a command as the service: its cgroup, user, environment, folder, mounts", ctlExec},
		{"logs", "[-f] [-n LINES] [--json] [SERVICE]", "the last lines of rouse or of a service; -f: and those to come", ctlLogs},
		{"watchers", "[--json]", "tracked watchers and who is late", ctlList("watchers", "rouse-watchers", "command pid service acknowledged late-ms")},
		{"quiesce", "[--timeout D] [--leftovers abort|destroy|keep] [--json]", "empty and shut the guest for a snapshot", ctlQuiesce},
		{"release", "[--json]", "let a quiesced guest go on, or try a held one again", ctlRelease},
		{"sockets", "[--json] [--wait D]", "what a drain would wait for; status 0 when nothing is left", ctlSockets},
		{"gate", "open|hold|shut|status [--mechanism NAME] [--json] [--force]", "the gate of this network namespace, by hand", ctlGate},
		{"sysgenid", "serve|bump|watchers|wait PATH [--json]", "serve the generation device; raise it, list its watchers, wait for them", ctlSysgenid},
		{"vmgenid", "[--tables DIR]", "where the VM generation id is, and its bytes", ctlVMGenID},
		{"poweroff", "", "end the machine", ctlEnd("poweroff", "powerdown")},
		{"reboot", "", "boot again", ctlEnd("reboot", "reboot")},
		{"halt", "", "stop the processor", ctlEnd("halt", "halt")},
		{"completion", "bash|zsh|fish", "a script that completes these commands in a shell", ctlCompletion},
		{"version", "[--json]", "the version", ctlVersion},
	}
}

// runCommand runs one guest command.
func runCommand(args []string, out io.Writer) error {
	if len(args) == 0 {
		args = []string{"help"}
	}
	switch args[0] {
	case "help", "-h", "--help":
		if len(args) < 2 {
			return usage(out)
		}
		args = []string{args[1], "--help"}
	case "log":
		args[0] = "logs"
	}
	names := ""
	for _, c := range commands() {
		if c.name != args[0] {
			names += ", " + c.name
			continue
		}
		err := c.run(args[1:], out)
		if errors.Is(err, errHelp) {
			_, err = fmt.Fprintf(out, "rousectl %s\n  %s\n%s\n", strings.TrimSpace(c.name+" "+c.args), c.help, err)
		}
		return err
	}
	return fmt.Errorf("%q: no such command; there are %s", args[0], names[2:])
}

func usage(out io.Writer) error {
	text := "rousectl: the guest command of rouse. `rousectl help COMMAND` tells more of one.\n\n"
	for _, c := range commands() {
		text += "  rousectl " + c.name + " " + c.args + "\n        " + c.help + "\n"
	}
	_, err := io.WriteString(out, text)
	return err
}

// only checks the number of words.
func only(words []string, least, most int, want string) error {
	if len(words) < least || len(words) > most {
		return errors.New("usage: rousectl " + want)
	}
	return nil
}

// options is parse for commands with --json and words, which it counts.
func options(f *flags, args []string, least, most int, want string) (words []string, asJSON bool, err error) {
	b := f.Bool("json", false, "print JSON")
	if words, err = parse(f, args); err == nil {
		err = only(words, least, most, f.command+want)
	}
	return words, *b, err
}

func ctlVersion(args []string, out io.Writer) error {
	_, asJSON, err := options(newFlags("version"), args, 0, 0, "")
	if err != nil {
		return err
	}
	return show(out, asJSON, map[string]string{"version": version}, func() { fmt.Fprintln(out, version) })
}
