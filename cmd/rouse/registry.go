package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"rouse/vmm/oci"
)

type registryFlags struct {
	Insecure bool `help:"Speak plain HTTP to a registry that is not on this machine."`
	Jobs     int  `default:"4" help:"Transfers side by side."`
}

// options show each tenth of the way.
func (f registryFlags) options(s *session, what string) oci.Options {
	var last atomic.Int64
	last.Store(-1)
	return oci.Options{Insecure: f.Insecure, Jobs: f.Jobs, Progress: func(done, total int64) {
		if tenth := done * 10 / max(total, 1); tenth > last.Load() {
			last.Store(tenth)
			s.ui.step(what, fmt.Sprintf("%.1f of %.1f MB", float64(done)/1e6, float64(total)/1e6), 11)
		}
	}}
}

type pushCommand struct {
	Snapshot  string `arg:"" type:"existingdir" help:"Snapshot folder."`
	Reference string `arg:"" help:"Where to, as in HOST/PATH:TAG. Credentials are those of docker login."`
	registryFlags
}

// Run pushes; parts that the registry has are not sent.
func (p *pushCommand) Run(s *session) error {
	defer s.ui.close()
	s.ui.step("push", "compress", 11)
	digest, err := oci.Push(s.ctx, p.Snapshot, p.Reference, p.options(s, "push"))
	if err != nil {
		return err
	}
	s.ui.step("push", "", 11)
	s.ui.close()
	return s.emit(map[string]string{"reference": digest}, digest)
}

type pullCommand struct {
	Reference string `arg:"" help:"Where from, as in HOST/PATH:TAG or HOST/PATH@sha256:DIGEST."`
	Output    string `arg:"" help:"Snapshot folder to write; it must not exist."`
	Cache     string `placeholder:"DIR" help:"Where parts are kept for the next pull, which then fetches only what is new; rouse/blobs in the user's cache folder if not given."`
	registryFlags
}

// Run pulls.
func (p *pullCommand) Run(s *session) error {
	defer s.ui.close()
	if p.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("%w; give a folder with --cache", err)
		}
		p.Cache = filepath.Join(dir, "rouse", "blobs")
	}
	m, err := oci.Pull(s.ctx, p.Reference, filepath.Clean(p.Output), p.Cache, p.options(s, "pull"))
	if err != nil {
		return err
	}
	s.ui.step("pull", "", 11)
	s.ui.close()
	return s.emit(map[string]any{"snapshot": p.Output, "manifest": m}, p.Output)
}
