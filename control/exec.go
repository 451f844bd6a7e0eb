package control

import (
	"context"

	"rouse/internal/fmt"
)

// ExecRequest is a program to run. Args are without the program's name; Env, as KEY=value, is all of its environment.
type ExecRequest struct {
	Path  string
	Args  []string
	Env   []string
	Input []byte
	// Capture asks for the output; without it output goes nowhere.
	Capture bool
	// OutputLimit is how many bytes of each output to keep: more would not fit an answer.
	OutputLimit int
}

// Execution is a program that was started. Done is closed at its end; the rest is valid from then on.
type Execution struct {
	PID      int
	Done     <-chan struct{}
	ExitCode int
	Signal   int // 0 if it exited by itself
	Out, Err []byte
	// OutTruncated and ErrTruncated say that there was more than OutputLimit.
	OutTruncated, ErrTruncated bool
}

// outputLimit keeps both outputs, in base64, below MaxLine.
const outputLimit = 256 << 10

func guestExec(_ context.Context, s *Server, a *arguments) (any, error) {
	if a.Path == "" {
		return nil, fmt.Errorf("argument \"path\" is missing")
	}
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.quiescing.Load() || s.guest.Frozen() {
		return nil, fmt.Errorf("%w: a quiesce has begun", ErrRefused)
	}
	e, err := s.o.Exec(ExecRequest{a.Path, a.Arg, a.Env, a.Input, a.Capture, outputLimit})
	if err != nil {
		return nil, err
	}
	if _, err := s.execs.add(int64(e.PID), e); err != nil {
		return nil, fmt.Errorf("pid %d runs, but nothing can be told of it: %w", e.PID, err)
	}
	return struct {
		PID int `json:"pid"`
	}{e.PID}, nil
}

type execStatus struct {
	Exited       bool   `json:"exited"`
	ExitCode     *int   `json:"exitcode,omitempty"`
	Signal       int    `json:"signal,omitempty"`
	Out          []byte `json:"out-data,omitempty"`
	Err          []byte `json:"err-data,omitempty"`
	OutTruncated bool   `json:"out-truncated,omitempty"`
	ErrTruncated bool   `json:"err-truncated,omitempty"`
}

// guestExecStatus forgets a program once it has told its end, as the guest agent does.
func guestExecStatus(_ context.Context, s *Server, a *arguments) (any, error) {
	e, err := s.execs.get(a.PID)
	if err != nil {
		return nil, fmt.Errorf("pid %d: not started by guest-exec, or its end was told already", a.PID)
	}
	select {
	case <-e.Done:
	default:
		return execStatus{}, nil
	}
	s.execs.remove(a.PID)
	st := execStatus{Exited: true, Signal: e.Signal, Out: e.Out, Err: e.Err, OutTruncated: e.OutTruncated, ErrTruncated: e.ErrTruncated}
	if e.Signal == 0 {
		st.ExitCode = &e.ExitCode
	}
	return st, nil
}
