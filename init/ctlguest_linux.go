package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"rouse/config"
	"rouse/control"
	"rouse/internal/json"
	"rouse/quiesce"
	"rouse/service"
)

// The commands that ask PID 1 through its unix socket.

// socketPath is where PID 1 of this guest listens.
func socketPath() string {
	if p := os.Getenv("ROUSE_SOCKET"); p != "" {
		return p
	}
	if text, err := os.ReadFile(config.Path); err == nil {
		// A mistake in the file is PID 1's to report; its socket then is where it always is.
		if c, err := config.Parse(config.Path, text, nil); err == nil {
			return c.Control.Socket
		}
	}
	return config.Default().Control.Socket
}

// ask sends one command to PID 1.
func ask(timeout time.Duration, command string, args, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := control.DialSocket(ctx, socketPath())
	if err != nil {
		return fmt.Errorf("%w; is rouse PID 1 of this machine, and are you root?", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	text, err := control.Ask(c, command, args)
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal(text, result)
}

const askTimeout = 15 * time.Second

// show prints v as JSON, or leaves it to text.
func show(out io.Writer, asJSON bool, v any, text func()) error {
	if !asJSON {
		text()
		return nil
	}
	return json.Write(out, v, true)
}

func ctlStatus(args []string, out io.Writer) error {
	f := newFlags("status")
	asJSON := f.Bool("json", false, "print JSON")
	if _, err := parse(f, args); err != nil {
		return err
	}
	var s control.Status
	if err := ask(askTimeout, "rouse-status", nil, &s); err != nil {
		return err
	}
	return show(out, *asJSON, s, func() {
		fmt.Fprintf(out, "state       %s\ngeneration  %d (%s)\nvmgenid     %s (noticed by: %s)\ngate        %s (%s)\nwatchers    %d tracked, %d outdated\n",
			s.State, s.Generation, s.SysGenID, s.VMGenID, s.Source, s.Gate, s.Mechanism, s.Watchers, s.Outdated)
		for _, p := range s.Problems {
			fmt.Fprintf(out, "problem     %s\n", p)
		}
	})
}

func ctlReport(args []string, out io.Writer) error {
	f := newFlags("report")
	asJSON := f.Bool("json", false, "print JSON")
	if _, err := parse(f, args); err != nil {
		return err
	}
	var raw json.RawMessage
	if err := ask(askTimeout, "rouse-report", nil, &raw); err != nil {
		return err
	}
	return printReport(out, *asJSON, raw)
}

// printReport shows a report as a timeline.
func printReport(out io.Writer, asJSON bool, raw json.RawMessage) error {
	var r quiesce.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if r.Kind == "" {
		return errors.New("report: none yet: nothing was quiesced or resumed")
	}
	return show(out, asJSON, raw, func() {
		fmt.Fprintf(out, "%s: %s in %v, generation %d\n", r.Kind, r.Outcome, time.Duration(r.DurationNS).Round(time.Microsecond), r.Generation)
		if r.Reason != "" {
			fmt.Fprintf(out, "  reason: %s\n", r.Reason)
		}
		for _, p := range r.Phases {
			start := time.Duration(p.StartNS - r.StartNS).Round(time.Microsecond)
			fmt.Fprintf(out, "  %12v  %-9s %12v  %s\n", start, p.Name, time.Duration(p.DurationNS).Round(time.Microsecond), p.Error)
		}
		for _, l := range r.Leftovers {
			fmt.Fprintf(out, "  left: %s\n", l)
		}
		for _, w := range r.Warnings {
			fmt.Fprintf(out, "  warning: %s\n", w)
		}
	})
}

func ctlServices(args []string, out io.Writer) error {
	f := newFlags("services")
	asJSON := f.Bool("json", false, "print JSON")
	if _, err := parse(f, args); err != nil {
		return err
	}
	var list []service.Status
	if err := ask(askTimeout, "rouse-services", nil, &list); err != nil {
		return err
	}
	return show(out, *asJSON, list, func() {
		for _, s := range list {
			fmt.Fprintf(out, "%-20s %-9s pid %-6d restarts %d  %s\n", s.Name, s.State, s.PID, s.Restarts, s.Reason)
		}
	})
}

func ctlWatchers(args []string, out io.Writer) error {
	f := newFlags("watchers")
	asJSON := f.Bool("json", false, "print JSON")
	if _, err := parse(f, args); err != nil {
		return err
	}
	var list []quiesce.Watcher
	if err := ask(askTimeout, "rouse-watchers", nil, &list); err != nil {
		return err
	}
	return show(out, *asJSON, list, func() {
		for _, w := range list {
			late := "up to date"
			if w.LateMS > 0 {
				late = fmt.Sprintf("late by %d ms", w.LateMS)
			}
			fmt.Fprintf(out, "%s[%d] of %s: acknowledged %d, %s\n", w.Command, w.PID, w.Service, w.Acknowledged, late)
		}
	})
}

func ctlLog(args []string, out io.Writer) error {
	f := newFlags("log")
	lines := f.Int("n", 100, "how many lines")
	words, err := parse(f, args)
	if err != nil {
		return err
	}
	if err := only(words, 0, 1, "log [-n LINES] [SERVICE]"); err != nil {
		return err
	}
	var list []string
	arguments := map[string]any{"lines": *lines, "service": strings.Join(words, "")}
	if err := ask(askTimeout, "rouse-log", arguments, &list); err != nil {
		return err
	}
	for _, line := range list {
		fmt.Fprintln(out, line)
	}
	return nil
}

func ctlQuiesce(args []string, out io.Writer) error {
	f := newFlags("quiesce")
	timeout := f.Duration("timeout", 0, "how long the drain may take; 0 is as configured")
	leftovers := f.String("leftovers", "", "abort, destroy or keep; empty is as configured")
	asJSON := f.Bool("json", false, "print JSON")
	if _, err := parse(f, args); err != nil {
		return err
	}
	arguments := map[string]any{}
	if *timeout > 0 {
		arguments["timeout-ms"] = timeout.Milliseconds()
	}
	if *leftovers != "" {
		arguments["leftovers"] = *leftovers
	}
	var raw json.RawMessage
	if err := ask(10*time.Minute, "rouse-quiesce", arguments, &raw); err != nil {
		return err
	}
	return printReport(out, *asJSON, raw)
}

func ctlRelease(args []string, out io.Writer) error {
	if _, err := parse(newFlags("release"), args); err != nil {
		return err
	}
	return ask(2*time.Minute, "rouse-release", nil, nil)
}

func ctlEnd(mode string) func([]string, io.Writer) error {
	return func([]string, io.Writer) error {
		return ask(askTimeout, "guest-shutdown", map[string]string{"mode": mode}, nil)
	}
}
