package control

import (
	"errors"
	"io"
	"os"

	"rouse/internal/fmt"
	"rouse/internal/json"
)

// Ask sends one command and waits for its answer: a client for the guest's own commands, in a tenth of Client's size. It is
// for a connection on which nobody else speaks, as DialSocket gives; its deadline bounds the wait. Errors are those of
// Client.Do.
func Ask(conn io.ReadWriter, command string, args any) (json.RawMessage, error) {
	req := request{Execute: command}
	var err error
	if args != nil {
		if req.Arguments, err = json.Marshal(args); err != nil {
			return nil, err
		}
	}
	line, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var answer response
	if _, err = conn.Write(append(line, '\n')); err == nil {
		f := frames{r: conn}
		if _, line, err = f.next(); err == nil {
			err = json.Unmarshal(line, &answer)
		}
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%s: %w", command, ErrTimeout)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", command, err)
	case answer.Error != nil:
		return nil, answer.Error
	}
	return answer.Return, nil
}
