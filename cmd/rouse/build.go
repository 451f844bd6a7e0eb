package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"rouse/config"
	"rouse/rootfs/image"
	"rouse/rootfs/image/source"
)

type buildCommand struct {
	Input        string   `arg:"" optional:"" help:"What to make an image of: a static program, a folder, an archive or an image of a registry; see above."`
	Config       string   `short:"c" type:"existingfile" help:"Configuration of the guest (rouse.toml); goes above what the image says itself."`
	Output       string   `short:"o" required:"" help:"Folder to write: kernel, initrd, command line and, for a disk, the root."`
	Kernel       string   `required:"" type:"existingfile" help:"Kernel of the guest, a bzImage such as /boot/vmlinuz-VERSION."`
	Modules      string   `type:"existingdir" help:"Folder that holds lib/modules/VERSION of that kernel; \"/\" for an installed one."`
	Release      string   `help:"Which of several kernel releases below --modules; the kernel's own if empty."`
	File         []string `short:"f" sep:"none" placeholder:"HOST:GUEST[:MODE]" help:"Add a file to the image; MODE is octal."`
	Root         string   `type:"existingdir" help:"Folder to put into the image whole, above INPUT."`
	Cmdline      string   `default:"quiet" help:"Kernel command line; rouse.KEY=VALUE settings go above the configuration."`
	Format       string   `enum:"none,gzip,zstd,ext4,squashfs" default:"none" help:"Where the guest's root is: in memory, from an initrd that is not compressed (boots fastest), or by gzip or zstd (smallest); or on a disk, ext4 (writable) or squashfs (read-only, with what the guest writes in memory)."`
	Free         string   `default:"64M" placeholder:"SIZE" help:"Free space of an ext4 disk, such as 500M or 2G."`
	Platform     string   `placeholder:"OS/ARCH" help:"Which image of several; that of the init binary if empty."`
	PlainHTTP    bool     `name:"plain-http" help:"Speak HTTP with the registry. One on this machine is spoken to so anyway."`
	MaxSize      string   `default:"32G" placeholder:"SIZE" help:"How large an image may be when it is unpacked."`
	Signed       bool     `name:"signed-modules" help:"Keep the signatures of kernel modules. They are kept too if the command line asks the kernel to insist (module.sig_enforce, lockdown=); without, a module loads ten times faster."`
	KeepIdentity bool     `help:"Keep machine-id, random seeds and SSH host keys of the image, which all clones would share."`
	Init         string   `help:"rouse's guest binary; \"init\" beside this program if empty."`
}

// Help is what --help says before the flags.
func (*buildCommand) Help() string {
	return `INPUT is told apart by what is there:

  a program    a static ELF file; it runs as the service "main", or as the first service of the configuration
  a folder     with a file oci-layout: an OCI image layout; else a root file system
  a tar file   plain, gzip or zstd: an OCI archive, what docker save writes, or a root file system (docker export)
  HOST/NAME:TAG, NAME:TAG, NAME@sha256:DIGEST
               an image of a registry, with the credentials of docker login or podman login

A prefix says it outright: bin: dir: tar: oci:PATH[:NAME] oci-archive:PATH[:NAME] docker-archive:PATH[:NAME]
registry:REFERENCE docker://REFERENCE.

A container image's entrypoint, environment, user, working directory, stop signal, health check and exposed ports become the
service "main". What the configuration says of a service of that name goes above it, key by key. An image may have a
configuration of its own at /etc/rouse.toml.

Examples:

  rouse build ./server -o image --kernel vmlinuz --modules modules
  rouse build app.tar -c rouse.toml -o image --kernel vmlinuz --modules modules --format squashfs
  rouse build registry.example/team/app:1 -o image --kernel /boot/vmlinuz-VERSION --modules /

The whole manual is docs/images.md.`
}

// Run makes the image's files, each whole or not there.
func (b *buildCommand) Run(s *session) error {
	defer s.ui.close()
	const steps = 3
	s.ui.step("build", "read "+b.subject(), steps)
	p, err := b.plan(s.ctx)
	if err != nil {
		return err
	}
	defer p.close()
	s.ui.step("build", "gather files", steps)
	img, err := image.New(p.spec)
	if err != nil {
		return p.locate(err)
	}
	defer img.Close()
	if err := b.checkRelease(img.Release); err != nil {
		return err
	}
	s.ui.step("build", "write "+b.Output, steps)
	m, err := b.write(s.ctx, p, img)
	if err != nil {
		return err
	}
	s.ui.step("build", "", steps)
	s.ui.close()
	b.tell(p, img)
	return s.emit(struct {
		Image string `json:"image"`
		*made
	}{b.Output, m}, m.text(b.Output))
}

func (b *buildCommand) subject() string {
	if b.Input == "" {
		return b.Config
	}
	return b.Input
}

// tell says on standard error what somebody has to know who looks for a mistake later.
func (b *buildCommand) tell(p *plan, img *image.Image) {
	for _, n := range p.notes {
		fmt.Fprintln(os.Stderr, "rouse: note:", n)
	}
	for _, w := range img.Warnings {
		fmt.Fprintln(os.Stderr, "rouse: warning:", w)
	}
	if len(img.Stripped) > 0 {
		fmt.Fprintf(os.Stderr, "rouse: left out, because all clones would share them: %s\n", strings.Join(img.Stripped, ", "))
	}
}

// plan is what goes into the image and how it is configured.
type plan struct {
	spec      image.Spec
	overrides []string
	file      string // configuration of the command line, "" none
	text      []byte
	container *source.Image // nil if the input is none
	program   string        // name of the program that is the input, "" if it is none
	free      int64

	doc   config.Document // filled in by choose
	cfg   config.Config
	notes []string
	// generated is what the input says of itself.
	generated string
}

func (p *plan) close() {
	if p.container != nil {
		p.container.Close()
	}
}

// plan reads everything but the files of the image.
func (b *buildCommand) plan(ctx context.Context) (*plan, error) {
	p := &plan{overrides: overrides(b.Cmdline), file: b.Config}
	var err error
	if b.Config != "" {
		if p.text, err = os.ReadFile(b.Config); err != nil {
			return nil, err
		}
		// Before anything large is fetched: what is wrong in the file alone.
		if _, err := p.userTree(nil); err != nil {
			return nil, err
		}
	}
	p.spec = image.Spec{ModulesDir: b.Modules, Release: b.release(), Optional: config.GuestModules(), Dir: b.Root,
		Signed: b.signed(), KeepIdentity: b.KeepIdentity, Choose: p.choose}
	if p.spec.Epoch, err = epoch(); err != nil {
		return nil, err
	}
	if p.spec.Init, err = b.initPath(); err != nil {
		return nil, err
	}
	if p.spec.MaxBytes, err = size("--max-size", b.MaxSize); err != nil {
		return nil, err
	}
	if p.free, err = size("--free", b.Free); err != nil {
		return nil, err
	}
	for _, f := range b.File {
		file, err := parseFile(f)
		if err != nil {
			return nil, err
		}
		p.spec.Files = append(p.spec.Files, file)
	}
	if b.Input == "" && b.Config == "" && b.Root == "" {
		return nil, fmt.Errorf("nothing to make an image of: name a program, a folder or a container image, or give --config or --root; see rouse build --help")
	}
	if b.Input == "" {
		return p, nil
	}
	return p, b.input(ctx, p)
}

// input adds what INPUT names.
func (b *buildCommand) input(ctx context.Context, p *plan) error {
	in, err := source.Parse(b.Input)
	if err != nil {
		return err
	}
	switch in.Kind {
	case source.Program:
		p.program = filepath.Base(in.Path)
		p.spec.Files = append(p.spec.Files, image.File{Path: p.programPath(), Source: in.Path, Mode: 0o755})
		return nil
	case source.Tar:
		p.spec.Layers = []image.Layer{image.TarFile(in.Path)}
		return nil
	case source.Dir:
		if b.Root != "" {
			return fmt.Errorf("%s and --root %s: two folders; make one of them", in.Path, b.Root)
		}
		p.spec.Dir = in.Path
		return nil
	}
	platform := b.Platform
	if platform == "" {
		if platform, err = platformOf(p.spec.Init); err != nil {
			return err
		}
	}
	o := source.Options{Platform: platform, PlainHTTP: b.PlainHTTP, MaxBytes: p.spec.MaxBytes}
	if p.container, err = source.Open(ctx, in, o); err != nil {
		return err
	}
	p.spec.Layers = p.container.Layers
	return nil
}

// programPath is where the program that is the input goes: where the first service looks for it.
func (p *plan) programPath() string {
	if tree, err := p.userTree(nil); err == nil {
		if exec := tree.At("service[0].exec[0]"); tree.Has("service[0].exec[0]") && path.IsAbs(exec.Text) {
			return exec.Text
		}
	}
	return "/usr/bin/" + p.program
}

// platformOf is what an init binary is for.
func platformOf(init string) (string, error) {
	f, err := elf.Open(init)
	if err != nil {
		return "", fmt.Errorf("init %s: %w; want rouse's init binary, as `make build` leaves it in out/init", init, err)
	}
	defer f.Close()
	switch f.Machine {
	case elf.EM_X86_64:
		return "linux/amd64", nil
	case elf.EM_AARCH64:
		return "linux/arm64", nil
	}
	return "", fmt.Errorf("init %s: it is for %s, which rouse does not know", init, f.Machine)
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

// size reads bytes, with K, M, G or T for powers of 1024.
func size(flag, text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGT")
	n, err := strconv.ParseInt(digits, 10, 64)
	shift := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
	by, ok := shift[text[len(digits):]]
	if err != nil || !ok || n <= 0 || n > 1<<62>>by {
		return 0, fmt.Errorf("%s %s: want a size such as 64M or 2G", flag, text)
	}
	return n << by, nil
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

// signed says if the kernel will insist on the signatures of modules.
func (b *buildCommand) signed() bool {
	return b.Signed || strings.Contains(b.Cmdline, "module.sig_enforce") || strings.Contains(b.Cmdline, "lockdown=")
}
