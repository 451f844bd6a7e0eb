package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"rouse/vmm"
	"rouse/vmm/verify"
)

type verifyCommand struct {
	Path    string        `arg:"" type:"existingdir" help:"Snapshot folder, or image folder, which is baked first."`
	Port    []string      `short:"p" placeholder:"GUEST" help:"TCP port of an image that is to be looked at; a snapshot knows its own."`
	Get     string        `default:"/" placeholder:"PATH" help:"What to ask for with HTTP."`
	Exec    string        `placeholder:"COMMAND" help:"Shell command that prints values of a clone which must differ from its twin's, one a line; ROUSE_PORT_<guest port> tells where the clone is."`
	Allow   []string      `placeholder:"SERVICE" help:"Service that is known to hold nothing which clones must not share."`
	Memory  int           `placeholder:"MIB" help:"Memory of an image's guest; as in rouse bake."`
	Accel   string        `enum:"auto,kvm,tcg" default:"auto" help:"As in rouse bake, for an image."`
	Timeout time.Duration `default:"1m" help:"How long the services of an image, and then a clone, may take until they are ready."`
}

// errUnsafe is the verdict's exit status; the evidence has been printed.
var errUnsafe = errors.New("not safe to clone")

// Run prints the verdict.
func (v *verifyCommand) Run(s *session) error {
	defer s.ui.close()
	snapshot, remove, err := v.snapshot(s)
	if err != nil {
		return err
	}
	defer remove()
	c := verify.Config{Snapshot: snapshot, Timeout: v.Timeout, Path: v.Get, Allow: v.Allow,
		Step: func(i int, what string) { s.ui.step(fmt.Sprintf("clone %d", i), what, 4) }}
	if v.Exec != "" {
		c.Exec = v.print
	}
	r, err := verify.Run(s.ctx, c)
	if err != nil {
		return err
	}
	s.ui.close()
	if err := s.emit(r, verdict(r)); err != nil || r.Safe {
		return err
	}
	return errUnsafe
}

// snapshot bakes an image into a folder that is removed again.
func (v *verifyCommand) snapshot(s *session) (dir string, remove func(), err error) {
	if _, err := os.Stat(filepath.Join(v.Path, vmm.ManifestFile)); err == nil {
		return v.Path, func() {}, nil
	}
	b := bakeCommand{Image: v.Path, Memory: v.Memory, Port: v.Port, vmmFlags: vmmFlags{VMM: "qemu"}}
	b.adoptImage()
	ports, err := parsePorts(b.Port)
	if err != nil {
		return "", nil, err
	}
	tmp, err := os.MkdirTemp("", "rouse-verify-*")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(tmp) }
	dir = filepath.Join(tmp, "snapshot")
	_, err = vmm.Bake(s.ctx, vmm.BakeConfig{Image: v.Path, Output: dir, BootTimeout: v.Timeout,
		VM: vmm.Config{MemoryMiB: b.Memory, Forwards: ports, Accel: accelerator(v.Accel)}, Step: func(step string) { s.ui.step("bake", step, 6) }})
	if err != nil {
		remove()
		return "", nil, err
	}
	s.ui.step("bake", "", 6)
	return dir, remove, nil
}

func (v *verifyCommand) print(ctx context.Context, clone int, forwards []vmm.Forward) (string, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", v.Exec)
	cmd.Env = append(append(os.Environ(), portEnv(forwards)...), fmt.Sprintf("ROUSE_CLONE=%d", clone))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w", v.Exec, err)
	}
	return out.String(), nil
}

// verdict is the table for people.
func verdict(r verify.Result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, k := range r.Checks {
		fmt.Fprintf(w, "%s\t%s\t%s\n", strings.ToUpper(k.Verdict), k.Name, k.Says)
		for i, value := range k.Values {
			fmt.Fprintf(w, "\t\t  clone %d: %s\n", i, value)
		}
	}
	w.Flush()
	if r.Safe {
		return b.String() + "\nNothing was found that clones share and must not."
	}
	return b.String() + "\nNot safe to clone: see what failed."
}
