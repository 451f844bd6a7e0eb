package service

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// Command is a process to be started by a Reaper. Its fields are those of os/exec's Cmd, which is not used: with
// its pipes, contexts and search of our own PATH it is 25 KB of an init that wants none of that.
type Command struct {
	Path                  string
	Args                  []string // argv; Path alone if nil
	Env                   []string // nothing of our own environment is added
	Dir                   string   // ours if empty
	Stdin, Stdout, Stderr *os.File // nil is /dev/null
	ExtraFiles            []*os.File
	SysProcAttr           *syscall.SysProcAttr
}

// start forks and executes, and returns once the program was executed.
func (c *Command) start() (int, error) {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, about("start: open", os.DevNull, err)
	}
	attr := &syscall.ProcAttr{Dir: c.Dir, Env: c.Env, Sys: c.SysProcAttr}
	attr.Files = make([]uintptr, 3+len(c.ExtraFiles))
	for i := range attr.Files {
		attr.Files[i] = c.file(i, uintptr(null))
	}
	args := c.Args
	if args == nil {
		args = []string{c.Path}
	}
	pid, _, err := syscall.StartProcess(c.Path, args, attr)
	unix.Close(null)
	runtime.KeepAlive(c) // its files
	what := c.Path
	if c.Dir != "/" { // it may be what cannot be entered
		what += " in " + c.Dir
	}
	return pid, about("start: fork/exec", what, err)
}

// file is what the process gets as descriptor n.
func (c *Command) file(n int, null uintptr) uintptr {
	var f *os.File
	switch n {
	case 0:
		f = c.Stdin
	case 1:
		f = c.Stdout
	case 2:
		f = c.Stderr
	default:
		f = c.ExtraFiles[n-3]
	}
	if f == nil {
		return null
	}
	return f.Fd()
}

// about gives err the operation and, if any, the object that it is about; nil stays nil. A call of it is half the
// code of fmt.Errorf's, and there are a hundred.
func about(operation, object string, err error) error {
	if err == nil {
		return nil
	}
	if object != "" {
		operation += " " + object
	}
	return fmt.Errorf("%s: %w", operation, err)
}
