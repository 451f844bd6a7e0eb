package main

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"

	"rouse/doctor"
)

// doctorCommand judges a kernel by its configuration, before anything is built for it.
type doctorCommand struct {
	KernelConfig string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration of a guest's kernel: .config, /boot/config-VERSION, or config.gz."`
	All          bool   `help:"Also tell what is as it should be."`
}

// Run fails where snapshots would not be safe.
func (d *doctorCommand) Run(s *session) error {
	defer s.ui.close()
	r, err := judgeFile(d.KernelConfig)
	if err != nil {
		return err
	}
	if err := s.emit(r, strings.TrimSuffix(r.Text(d.All), "\n")); err != nil {
		return err
	}
	if !r.Safe {
		return fmt.Errorf("%s: %s", d.KernelConfig, r.Verdict)
	}
	return nil
}

// judgeFile reads a configuration, plain or compressed by gzip.
func judgeFile(path string) (*doctor.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := bufio.NewReader(f)
	r := io.Reader(text)
	if magic, _ := text.Peek(2); string(magic) == "\x1f\x8b" {
		if r, err = gzip.NewReader(text); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	c, err := doctor.ReadConfig(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return doctor.Judge(path, c.Has), nil
}
