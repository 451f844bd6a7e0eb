package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"rouse/control"
	"rouse/vmm/roster"
)

type psCommand struct{}

// Run lists clones.
func (*psCommand) Run(s *session) error {
	r, err := roster.Open("")
	if err != nil {
		return err
	}
	list, err := r.List()
	if err != nil {
		return err
	}
	if s.json {
		for _, e := range list {
			if err := s.emit(e, ""); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tPID\tAGE\tGENERATION\tVMGENID\tPORTS\tSNAPSHOT")
	for _, e := range list {
		var ports []string
		for _, p := range e.Ports {
			ports = append(ports, fmt.Sprintf("%s->%d", p.Host, p.Guest))
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%v\t%d\t%s\t%s\t%s\n", e.Name, e.State, e.QEMU.PID, time.Since(e.Began).Round(time.Second),
			e.Generation, e.VMGenID, strings.Join(ports, ","), e.Snapshot)
	}
	return w.Flush()
}

type logsCommand struct {
	Name   string `arg:"" help:"Clone, as rouse ps lists it."`
	Follow bool   `short:"f" help:"Go on as the guest writes."`
}

// logPause is how often a console is looked at: a growing file tells nobody.
const logPause = 200 * time.Millisecond

// Run prints a guest's console.
func (l *logsCommand) Run(s *session) error {
	r, e, err := find(l.Name)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(r.Folder(e.Name), roster.ConsoleFile))
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := io.Copy(s.out, f); err != nil {
			return err
		}
		if !l.Follow || !e.QEMU.Alive() {
			return nil
		}
		select {
		case <-s.ctx.Done():
			return nil
		case <-time.After(logPause):
		}
	}
}

func find(name string) (*roster.Roster, roster.Entry, error) {
	r, err := roster.Open("")
	if err != nil {
		return nil, roster.Entry{}, err
	}
	e, err := r.Find(name)
	return r, e, err
}

type stopCommand struct {
	Names   []string      `arg:"" name:"name" help:"Clones, as rouse ps lists them."`
	Timeout time.Duration `default:"10s" help:"How long the guest may take to shut down before QEMU is ended."`
	Now     bool          `help:"End QEMU without asking the guest."`
}

// killTime is how long QEMU may take to end by itself.
const killTime = 5 * time.Second

// Run ends clones: by the guest, else by QEMU, else by force.
func (c *stopCommand) Run(s *session) error {
	var errs []error
	for _, name := range c.Names {
		r, e, err := find(name)
		if err == nil {
			err = c.stop(s.ctx, r, e)
		}
		if err == nil {
			err = s.emit(map[string]string{"stopped": name}, name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *stopCommand) stop(ctx context.Context, r *roster.Roster, e roster.Entry) error {
	if !e.QEMU.Alive() {
		return nil
	}
	if !c.Now && shutDown(ctx, filepath.Join(r.Folder(e.Name), "control.sock"), c.Timeout) == nil && e.QEMU.Await(c.Timeout) {
		return nil
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := e.QEMU.Signal(sig); err != nil && e.QEMU.Alive() {
			return fmt.Errorf("stop %s: %w", e.Name, err)
		}
		if e.QEMU.Await(killTime) {
			return nil
		}
	}
	return fmt.Errorf("stop %s: process %d does not end", e.Name, e.QEMU.PID)
}

// shutDown asks the guest. A guest that ends has no time for an answer.
func shutDown(ctx context.Context, socket string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	g, err := control.DialUnix(ctx, socket)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := g.Sync(ctx); err != nil {
		return err
	}
	err = g.Do(ctx, "guest-shutdown", map[string]string{"mode": "powerdown"}, nil)
	var refusal *control.CommandError
	if errors.As(err, &refusal) {
		return err
	}
	return nil
}

type rmCommand struct {
	Names []string `arg:"" name:"name" help:"Clones, as rouse ps lists them."`
	Force bool     `short:"f" help:"End those that run."`
}

// Run removes ended clones with their consoles.
func (c *rmCommand) Run(s *session) error {
	var errs []error
	for _, name := range c.Names {
		errs = append(errs, c.remove(s, name))
	}
	return errors.Join(errs...)
}

func (c *rmCommand) remove(s *session, name string) error {
	r, e, err := find(name)
	if err != nil {
		return err
	}
	if e.State != roster.Exited && e.QEMU.Alive() {
		if !c.Force {
			return fmt.Errorf("clone %s runs; rouse stop %s first, or rm --force", name, name)
		}
		if err := (&stopCommand{Now: true}).stop(s.ctx, r, e); err != nil {
			return err
		}
	}
	if err := r.Strike(name); err != nil {
		return err
	}
	return s.emit(map[string]string{"removed": name}, name)
}
