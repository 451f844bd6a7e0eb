package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"rouse/vmm"
)

type exportCommand struct {
	Snapshot string `arg:"" type:"existingdir" help:"Snapshot folder."`
	File     string `arg:"" help:"File to write, an uncompressed tar archive; - is standard output."`
}

// Run writes the file beside its place and then moves it there.
func (e *exportCommand) Run(s *session) error {
	if e.File == "-" {
		return vmm.Export(s.ctx, e.Snapshot, s.out)
	}
	err := replaceFile(e.File, func(w io.Writer) error { return vmm.Export(s.ctx, e.Snapshot, w) })
	if err != nil {
		return err
	}
	return s.emit(map[string]string{"file": e.File}, e.File)
}

type importCommand struct {
	File   string `arg:"" help:"File made by rouse export; - is standard input."`
	Output string `arg:"" help:"Snapshot folder to write; it must not exist."`
}

// Run unpacks and checks.
func (i *importCommand) Run(s *session) error {
	in := os.Stdin
	if i.File != "-" {
		f, err := os.Open(i.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	m, err := vmm.Import(s.ctx, in, filepath.Clean(i.Output))
	if err != nil {
		return fmt.Errorf("import %s: %w", i.File, err)
	}
	return s.emit(map[string]any{"snapshot": i.Output, "manifest": m}, i.Output)
}
