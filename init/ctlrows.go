package main

import (
	"io"
	"strconv"
	"strings"

	"rouse/internal/json"
)

// ctlList is a command that asks PID 1 for a list and prints columns of its objects.
func ctlList(name, question, columns string) func([]string, io.Writer) error {
	return func(args []string, out io.Writer) error {
		_, asJSON, err := options(newFlags(name), args, 0, 0, "")
		if err != nil {
			return err
		}
		var list json.RawMessage
		if err := ask(askTimeout, question, nil, &list); err != nil {
			return err
		}
		return showRows(out, asJSON, list, columns)
	}
}

// showRows prints a JSON list of objects as it is, or as a table of some of their fields. A field "#" is the
// number of the row, from 1.
func showRows(out io.Writer, asJSON bool, list json.RawMessage, columns string) error {
	var rows []map[string]json.RawMessage
	if err := json.Unmarshal(list, &rows); err != nil {
		return err
	}
	return show(out, asJSON, list, func() { io.WriteString(out, table(rows, strings.Fields(columns))) })
}

// widest is how wide a cell may be to make its column wide.
const widest = 44

func table(rows []map[string]json.RawMessage, columns []string) string {
	lines := make([]string, len(rows)+1)
	for i, column := range columns {
		from, width := len(lines[0]), 0
		for j := range lines {
			cell := strings.ToUpper(column)
			if j > 0 {
				cell = plain(rows[j-1][column])
				if column == "#" {
					cell = strconv.Itoa(j)
				}
			}
			lines[j] += cell
			width = max(width, min(len(lines[j]), from+widest))
		}
		for j := range lines {
			if i < len(columns)-1 {
				lines[j] += strings.Repeat(" ", max(width-len(lines[j]), 0)+2)
			}
		}
	}
	text := ""
	for _, line := range lines {
		text += strings.TrimRight(line, " ") + "\n"
	}
	return text
}

// plain is a value as people read it.
func plain(v json.RawMessage) string {
	var s string
	if len(v) == 0 || string(v) == "null" {
		return "-"
	}
	if v[0] == '"' && json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// show prints v as JSON, or leaves it to text.
func show(out io.Writer, asJSON bool, v any, text func()) error {
	if !asJSON {
		text()
		return nil
	}
	return json.Write(out, v, true)
}
