package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"rouse/config"
	"rouse/rootfs/image"
	"rouse/vmm"
)

type buildCommand struct {
	Program string   `arg:"" optional:"" type:"existingfile" help:"Static program; it becomes the first service's exec[0]."`
	Config  string   `short:"c" required:"" type:"existingfile" help:"Configuration of the guest (rouse.toml)."`
	Output  string   `short:"o" required:"" help:"Folder to write: kernel, initrd and command line."`
	Kernel  string   `required:"" type:"existingfile" help:"Kernel of the guest, a bzImage such as /boot/vmlinuz-VERSION."`
	Modules string   `type:"existingdir" help:"Folder that holds lib/modules/VERSION of that kernel; \"/\" for an installed one."`
	Release string   `help:"Which of several kernel releases below --modules."`
	File    []string `short:"f" sep:"none" placeholder:"HOST:GUEST[:MODE]" help:"Add a file to the image; MODE is octal."`
	Root    string   `type:"existingdir" help:"Folder to put into the image whole."`
	Cmdline string   `default:"quiet" help:"Kernel command line; rouse.KEY=VALUE settings go above the configuration."`
	Format  string   `enum:"none,gzip,zstd" default:"none" help:"Compression of the initrd: none boots fastest, zstd is smallest."`
	Init    string   `help:"rouse's guest binary; \"init\" beside this program if empty."`
}

// Run makes the image in a folder beside its place and then moves it there: an image is whole or not there.
func (b *buildCommand) Run(s *session) error {
	defer s.ui.close()
	s.ui.step("build", "check the configuration", 3)
	spec, cfg, err := b.spec()
	if err != nil {
		return err
	}
	s.ui.step("build", "gather files", 3)
	img, err := image.New(spec)
	if err != nil {
		return b.locate(spec.Config, cfg, err)
	}
	defer img.Close()
	s.ui.step("build", "write "+b.Output, 3)
	size, err := b.write(img)
	if err != nil {
		return err
	}
	s.ui.step("build", "", 3)
	s.ui.close()
	for _, w := range img.Warnings {
		fmt.Fprintln(os.Stderr, "rouse: warning:", w)
	}
	if len(img.Stripped) > 0 {
		fmt.Fprintf(os.Stderr, "rouse: left out, because all clones would share them: %s\n", strings.Join(img.Stripped, ", "))
	}
	return s.emit(map[string]any{"image": b.Output, "initrd-bytes": size, "modules": img.Modules, "kernel": img.Release,
		"warnings": img.Warnings, "stripped": img.Stripped},
		fmt.Sprintf("%s: %.1f MB initrd, kernel %s, %d modules", b.Output, float64(size)/1e6, img.Release, len(img.Modules)))
}

// spec reads the configuration and says what goes into the image.
func (b *buildCommand) spec() (image.Spec, config.Config, error) {
	text, err := os.ReadFile(b.Config)
	if err != nil {
		return image.Spec{}, config.Config{}, err
	}
	cfg, err := config.Parse(b.Config, text, overrides(b.Cmdline))
	if err != nil {
		return image.Spec{}, cfg, err
	}
	spec := image.Spec{Config: text, ModulesDir: b.Modules, Release: b.Release, Modules: cfg.Modules,
		Optional: config.GuestModules(), Dir: b.Root, Commands: cfg.Programs()}
	if spec.Epoch, err = epoch(); err != nil {
		return spec, cfg, err
	}
	if spec.Init, err = b.initPath(); err != nil {
		return spec, cfg, err
	}
	if b.Program != "" {
		if len(cfg.Services) == 0 {
			return spec, cfg, fmt.Errorf("%s: no [[service]] for %s; add one with exec = [\"/usr/bin/%s\"]", b.Config, b.Program, filepath.Base(b.Program))
		}
		spec.Files = append(spec.Files, image.File{Path: cfg.Services[0].Exec[0], Source: b.Program, Mode: 0o755})
	}
	for _, f := range b.File {
		file, err := parseFile(f)
		if err != nil {
			return spec, cfg, err
		}
		spec.Files = append(spec.Files, file)
	}
	return spec, cfg, nil
}

// epoch is the time of every file in the image (https://reproducible-builds.org/specs/source-date-epoch):
// the same input gives the same bytes.
func epoch() (int64, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("SOURCE_DATE_EPOCH=%q: want seconds since 1970", text)
	}
	return n, nil
}

// initPath finds the guest binary beside this one.
func (b *buildCommand) initPath() (string, error) {
	if b.Init != "" {
		return b.Init, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), "init")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no guest binary beside this program: %w; give it with --init (make build leaves it in out/init)", err)
	}
	return path, nil
}

// overrides are the rouse.* words of a command line, so that they are checked here and not first in the guest.
func overrides(cmdline string) []string {
	var list []string
	for _, word := range strings.Fields(cmdline) {
		if setting, ok := strings.CutPrefix(word, "rouse."); ok {
			list = append(list, setting)
		}
	}
	return list
}

// parseFile reads HOST:GUEST[:MODE].
func parseFile(s string) (image.File, error) {
	parts := strings.Split(s, ":")
	bad := fmt.Errorf("--file %s: want HOST:GUEST or HOST:GUEST:MODE, as in ./cert.pem:/etc/cert.pem:600", s)
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || !strings.HasPrefix(parts[1], "/") {
		return image.File{}, bad
	}
	f := image.File{Source: parts[0], Path: parts[1]}
	info, err := os.Stat(f.Source)
	if err != nil {
		return f, fmt.Errorf("--file: %w", err)
	}
	f.Mode = info.Mode().Perm()
	if len(parts) == 3 {
		mode, err := strconv.ParseUint(parts[2], 8, 12)
		if err != nil {
			return f, bad
		}
		f.Mode = os.FileMode(mode)
	}
	return f, nil
}

// locate says where in the configuration a program stands that the image cannot run.
func (b *buildCommand) locate(text []byte, cfg config.Config, err error) error {
	var command *image.CommandError
	if !errors.As(err, &command) {
		return err
	}
	found := config.CheckFiles(b.Config, text, cfg, func(path string) error {
		if path == command.Path {
			return err
		}
		return nil
	})
	if len(found) > 0 {
		return found[0]
	}
	return err
}

func (b *buildCommand) write(img *image.Image) (int64, error) {
	if err := os.MkdirAll(b.Output, 0o755); err != nil {
		return 0, err
	}
	kernel, err := os.Open(b.Kernel)
	if err != nil {
		return 0, err
	}
	defer kernel.Close()
	var size int64
	files := []struct {
		name string
		fill func(io.Writer) error
	}{
		{vmm.KernelFile, func(w io.Writer) error { _, err := io.Copy(w, kernel); return err }},
		{vmm.InitrdFile, func(w io.Writer) error {
			c := &counter{w: w}
			err := img.WriteCPIO(c, b.Format)
			size = c.n
			return err
		}},
		{vmm.CmdlineFile, func(w io.Writer) error { _, err := fmt.Fprintln(w, b.Cmdline); return err }},
	}
	for _, f := range files {
		if err := replaceFile(filepath.Join(b.Output, f.name), f.fill); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// replaceFile writes a new file into the place of an old one. The old one stays what it was for
// snapshots that share it by a hard link.
func replaceFile(path string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already if all went well
	if err := errors.Join(fill(f), f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
