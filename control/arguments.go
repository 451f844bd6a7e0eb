package control

import (
	"strings"

	"rouse/internal/fmt"
	"rouse/internal/json"
)

// arguments are those of all commands: one type, as each type of its own costs /init code. A command's row
// names those that it takes; others are refused.
type arguments struct {
	ID          *int64          `json:"id"`
	Time        *int64          `json:"time"`
	Mode        string          `json:"mode"`
	Path        string          `json:"path"`
	Arg         []string        `json:"arg"`
	Env         []string        `json:"env"`
	Input       []byte          `json:"input-data"`
	Capture     bool            `json:"capture-output"`
	PID         int64           `json:"pid"`
	Handle      int64           `json:"handle"`
	Count       *int64          `json:"count"`
	Data        []byte          `json:"buf-b64"`
	Offset      int64           `json:"offset"`
	Whence      json.RawMessage `json:"whence"`
	Mountpoints []string        `json:"mountpoints"`
	TimeoutMS   int64           `json:"timeout-ms"`
	Leftovers   string          `json:"leftovers"`
	Seed        []byte          `json:"seed"`
	TimeNS      int64           `json:"time-ns"`
	Identity    json.RawMessage `json:"identity"`
	Generation  string          `json:"generation"`
	States      []string        `json:"states"`
	Service     string          `json:"service"`
	Lines       *int64          `json:"lines"`
	After       *uint64         `json:"after"`
	Index       int64           `json:"index"`
	Name        string          `json:"name"`
	Action      string          `json:"action"`
	Signal      string          `json:"signal"`
}

// decodeArgs reads arguments, of which takes names those that are known; absent ones are an empty object.
func decodeArgs(raw json.RawMessage, takes string) (*arguments, error) {
	a := &arguments{}
	if len(raw) == 0 {
		return a, nil
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(raw, &given); err != nil {
		return nil, fmt.Errorf("arguments: %w", err)
	}
	for name := range given {
		if !strings.Contains(" "+takes+" ", " "+name+" ") {
			return nil, fmt.Errorf("arguments: unknown argument %q; there are %q", name, takes)
		}
	}
	if err := json.Unmarshal(raw, a); err != nil {
		return nil, fmt.Errorf("arguments: %w", err)
	}
	return a, nil
}
