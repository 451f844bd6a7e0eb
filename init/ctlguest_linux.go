package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"rouse/config"
	"rouse/control"
	"rouse/internal/fmt"
	"rouse/internal/json"
	"rouse/quiesce"
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

// Waits of the commands; what is behind them ends by itself long before.
const (
	askTimeout  = 15 * time.Second
	slowTimeout = 10 * time.Minute
)

func ctlStatus(args []string, out io.Writer) error {
	_, asJSON, err := options(newFlags("status"), args, 0, 0, "")
	if err != nil {
		return err
	}
	var s control.Status
	if err := ask(askTimeout, "rouse-status", nil, &s); err != nil {
		return err
	}
	return show(out, asJSON, s, func() {
		fmt.Fprintf(out, "state       %s\ngeneration  %d (%s)\nvmgenid     %s (noticed by: %s)\ngate        %s (%s)\nwatchers    %d tracked, %d outdated\n",
			s.State, s.Generation, s.SysGenID, s.VMGenID, s.Source, s.Gate, s.Mechanism, s.Watchers, s.Outdated)
		for _, p := range s.Problems {
			fmt.Fprintf(out, "problem     %s\n", p)
		}
	})
}

func ctlReport(args []string, out io.Writer) error {
	f := newFlags("report")
	list := f.Bool("list", false, "all reports that are kept, the last one first")
	words, asJSON, err := options(f, args, 0, 1, " [N]")
	if err != nil {
		return err
	}
	n := 1
	if len(words) > 0 {
		if n, err = strconv.Atoi(words[0]); err != nil {
			return fmt.Errorf("report %q: not a number; 1 is the last report", words[0])
		}
	}
	var raw json.RawMessage
	if *list {
		if err := ask(askTimeout, "rouse-reports", nil, &raw); err != nil {
			return err
		}
		return showRows(out, asJSON, raw, "# kind outcome generation duration-ns reason")
	}
	if err := ask(askTimeout, "rouse-report", map[string]int{"index": n - 1}, &raw); err != nil {
		return err
	}
	return printReport(out, asJSON, raw)
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
		fmt.Fprintf(out, "%s: %s in %v, generation %d\n", r.Kind, r.Outcome, rounded(r.DurationNS), r.Generation)
		if r.Reason != "" {
			fmt.Fprintf(out, "  reason: %s\n", r.Reason)
		}
		if r.Uncontrolled {
			fmt.Fprintf(out, "  uncontrolled: resumed without a quiesce, at most %v unguarded\n", rounded(r.UnguardedNS))
		}
		for _, p := range r.Phases {
			fmt.Fprintf(out, "  %12v  %-9s %12v  |%-30s| %s\n", rounded(p.StartNS-r.StartNS), p.Name, rounded(p.DurationNS), bar(p, r), p.Error)
		}
		if r.Kind == "adjust" {
			fmt.Fprintf(out, "  severed: %d inherited connections\n", r.Severed)
		}
		printLeftovers(out, "left", r.Leftovers)
		printLeftovers(out, "destroyed", r.Destroyed)
		for _, w := range r.Late {
			fmt.Fprintf(out, "  late: %s[%d] of %s\n", w.Command, w.PID, w.Service)
		}
		for _, w := range r.Warnings {
			fmt.Fprintf(out, "  warning: %s\n", w)
		}
	})
}

func printLeftovers(out io.Writer, label string, list []quiesce.Leftover) {
	for _, l := range list {
		fmt.Fprintf(out, "  %s: %s\n", label, l)
	}
}

func rounded(ns int64) time.Duration { return time.Duration(ns).Round(time.Microsecond) }

// bar is when a phase ran, in thirtieths of the whole.
func bar(p quiesce.Phase, r quiesce.Report) string {
	total := max(r.DurationNS, 1)
	from := min(max(30*(p.StartNS-r.StartNS)/total, 0), 29)
	to := min(max(30*(p.StartNS-r.StartNS+p.DurationNS)/total, from+1), 30)
	return strings.Repeat(" ", int(from)) + strings.Repeat("=", int(to-from))
}

func ctlQuiesce(args []string, out io.Writer) error {
	f := newFlags("quiesce")
	timeout := f.Duration("timeout", 0, "how long the drain may take; 0 is as configured")
	leftovers := f.String("leftovers", "", "abort, destroy or keep; empty is as configured")
	_, asJSON, err := options(f, args, 0, 0, "")
	if err != nil {
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
	if err := ask(slowTimeout, "rouse-quiesce", arguments, &raw); err != nil {
		return err
	}
	return printReport(out, asJSON, raw)
}

func ctlRelease(args []string, out io.Writer) error {
	_, asJSON, err := options(newFlags("release"), args, 0, 0, "")
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := ask(slowTimeout, "rouse-release", nil, &raw); err != nil {
		return err
	}
	return show(out, asJSON, raw, func() {})
}

func ctlEnd(name, mode string) func([]string, io.Writer) error {
	return func(args []string, _ io.Writer) error {
		words, err := parse(newFlags(name), args)
		if err == nil {
			err = only(words, 0, 0, name)
		}
		if err != nil {
			return err
		}
		return ask(askTimeout, "guest-shutdown", map[string]string{"mode": mode}, nil)
	}
}
