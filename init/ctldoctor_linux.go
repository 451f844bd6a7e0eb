package main

import (
	"errors"
	"io"

	"rouse/internal/json"
)

// ctlDoctor fails where snapshots are not safe.
func ctlDoctor(args []string, out io.Writer) error {
	f := newFlags("doctor")
	all := f.Bool("all", false, "also what is as it should be")
	_, asJSON, err := options(f, args, 0, 0, "")
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := ask(askTimeout, "rouse-doctor", nil, &raw); err != nil {
		return err
	}
	var r struct {
		Safe            bool
		Kernel, Verdict string
		Needs           []map[string]json.RawMessage
		Problems        []string
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return err
	}
	err = show(out, asJSON, raw, func() {
		rows := r.Needs[:0]
		for _, n := range r.Needs {
			if *all || n["cost"] != nil {
				rows = append(rows, n)
			}
		}
		text := r.Kernel + ": " + r.Verdict + "\n" + table(rows, []string{"need", "chosen", "missing", "cost"})
		for _, p := range r.Problems {
			text += "problem: " + p + "\n"
		}
		io.WriteString(out, text)
	})
	if err == nil && !r.Safe {
		err = errors.New(r.Verdict)
	}
	return err
}
