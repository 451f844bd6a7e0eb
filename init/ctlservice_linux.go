package main

import (
	"io"
	"time"

	"rouse/internal/fmt"
	"rouse/internal/json"
	"rouse/service"
)

// ctlService starts, stops, restarts or signals a service, and shows how it is then.
func ctlService(action string) func([]string, io.Writer) error {
	return func(args []string, out io.Writer) error {
		n, want := 1, " SERVICE"
		if action == "signal" {
			n, want = 2, " SERVICE SIGNAL"
		}
		words, asJSON, err := options(newFlags(action), args, n, n, want)
		if err != nil {
			return err
		}
		arguments := map[string]string{"name": words[0], "action": action}
		if n == 2 {
			arguments["signal"] = words[1]
		}
		var s json.RawMessage
		if err := ask(slowTimeout, "rouse-service", arguments, &s); err != nil {
			return err
		}
		return showRows(out, asJSON, append(append(json.RawMessage("["), s...), ']'), "name state pid restarts health reason")
	}
}

// logPage is the answer to rouse-log with a place to go on from.
type logPage struct {
	Lines []service.LogLine `json:"lines"`
	Next  uint64            `json:"next"`
}

// followWait is how long one question of a follower may wait for a line.
const followWait = 10 * time.Second

func ctlLogs(args []string, out io.Writer) error {
	f := newFlags("logs")
	last := f.Int("n", 100, "how many of the lines that there are")
	follow := f.Bool("f", false, "go on with lines as they come")
	words, asJSON, err := options(f, args, 0, 1, " [-f] [-n LINES] [SERVICE]")
	if err != nil {
		return err
	}
	l := logReader{out: out, json: asJSON}
	if len(words) > 0 {
		l.service = words[0]
	}
	lines, err := l.kept()
	if err == nil {
		err = l.print(lines[max(0, len(lines)-*last):])
	}
	for err == nil && *follow {
		if lines, err = l.more(followWait); err == nil {
			err = l.print(lines)
		}
	}
	return err
}

type logReader struct {
	service string
	next    uint64
	out     io.Writer
	json    bool
}

// more are the next lines, or none if there is none in time.
func (l *logReader) more(wait time.Duration) ([]service.LogLine, error) {
	var p logPage
	err := ask(wait+askTimeout, "rouse-log", map[string]any{"service": l.service, "after": l.next, "timeout-ms": wait.Milliseconds()}, &p)
	l.next = p.Next
	return p.Lines, err
}

// kept are all lines that there are.
func (l *logReader) kept() (all []service.LogLine, err error) {
	for {
		lines, err := l.more(0)
		if err != nil || len(lines) == 0 {
			return all, err
		}
		all = append(all, lines...)
	}
}

// print writes lines, as JSON one object a line.
func (l *logReader) print(lines []service.LogLine) (err error) {
	for _, line := range lines {
		if l.json {
			err = json.Write(l.out, line, false)
		} else {
			_, err = fmt.Fprintln(l.out, line.Text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
