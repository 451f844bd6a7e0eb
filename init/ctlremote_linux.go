package main

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"rouse/control"
	"rouse/internal/fmt"
	"rouse/internal/guard"
	"rouse/service"
)

// remoteCgroup is where programs of guest-exec run. No service's freezer reaches them, so that nothing is quiesced while
// one of them, or what it has left behind, is there.
const remoteCgroup = cgroupRoot + "/exec"

// errRemote is why a quiesce is refused then.
var errRemote = fmt.Errorf("%w: programs started by guest-exec still run, and would run on in a snapshot", control.ErrRefused)

// remoteRuns says if any of them is there.
func remoteRuns() bool {
	events, _ := os.ReadFile(remoteCgroup + "/cgroup.events") // no such cgroup, no such program
	return strings.Contains(string(events), "populated 1")
}

// Exec starts a program for the host, as control.ServerOptions want it.
func (h hostView) Exec(r control.ExecRequest) (*control.Execution, error) {
	if err := os.MkdirAll(remoteCgroup, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(remoteCgroup)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return startRemote(h.g.reaper, &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(dir.Fd())}, r)
}

func startRemote(reaper *service.Reaper, attr *syscall.SysProcAttr, r control.ExecRequest) (*control.Execution, error) {
	path, err := look(r.Path, r.Env)
	if err != nil {
		return nil, err
	}
	c := &service.Command{Path: path, Args: append([]string{r.Path}, r.Args...), Env: r.Env, Dir: "/", SysProcAttr: attr}
	var in, out, diag pipe
	if len(r.Input) > 0 {
		err = in.open()
	}
	if r.Capture {
		err = errors.Join(err, out.open(), diag.open())
	}
	c.Stdin, c.Stdout, c.Stderr = in.read, out.write, diag.write
	var p *service.Process
	if err == nil {
		p, err = reaper.Start(c)
	}
	closeAll(in.read, out.write, diag.write)
	if err != nil {
		closeAll(in.write, out.read, diag.read)
		return nil, err
	}
	done := make(chan struct{})
	e := &control.Execution{PID: p.PID(), Done: done}
	go guard.Do(func() {
		if in.write != nil {
			_, _ = in.write.Write(r.Input) // that the program reads no more is its own affair
			in.write.Close()
		}
	})
	go guard.Do(func() {
		defer close(done)
		collect(e, p, &out, &diag, r.OutputLimit)
	})
	return e, nil
}

// pipe is nil at both ends until it is opened.
type pipe struct{ read, write *os.File }

func (p *pipe) open() (err error) {
	p.read, p.write, err = os.Pipe()
	return err
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// outputPatience is how long output is waited for when the program has ended: what it has left behind may hold
// its pipes for ever.
const outputPatience = time.Second

const pipeSize = 64 << 10 // pipe(7)

// collect fills e in until the program has ended and all of its output is there.
func collect(e *control.Execution, p *service.Process, out, diag *pipe, limit int) {
	var both sync.WaitGroup
	both.Add(2)
	take := func(from *pipe, data *[]byte, truncated *bool) {
		go guard.Do(func() {
			defer both.Done()
			if from.read != nil {
				*data, *truncated = drain(from.read, limit)
				from.read.Close()
			}
		})
	}
	take(out, &e.Out, &e.OutTruncated)
	take(diag, &e.Err, &e.ErrTruncated)
	<-p.Done()
	for _, f := range []*os.File{out.read, diag.read} {
		if f != nil {
			_ = f.SetReadDeadline(time.Now().Add(outputPatience))
		}
	}
	both.Wait()
	if status := p.Status(); status.Signaled() {
		e.Signal = int(status.Signal())
	} else {
		e.ExitCode = status.ExitStatus()
	}
}

// drain reads to the end and keeps the first bytes. (io.Copy knows splice and its like: 13 KB of /init.) At its deadline it takes
// what is in the pipe, for on a busy machine it may be late itself, and no more, for others may go on filling it.
func drain(f *os.File, limit int) (kept []byte, more bool) {
	buf := make([]byte, 4096)
	late, rest := false, pipeSize
	for rest > 0 {
		n, err := service.ReadOr(f, buf, late)
		if late {
			rest -= n
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			late, err = true, nil
		}
		fits := min(n, limit-len(kept))
		kept, more = append(kept, buf[:fits]...), more || fits < n
		if err != nil { // what came before it counts
			return kept, more
		}
	}
	return kept, more
}
