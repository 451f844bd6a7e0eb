package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rouse/config"
	"rouse/rootfs/image"
	"rouse/vmm"
)

// Files of an image folder beside those of package vmm.
const (
	imageFile = "image.json"
	rootFile  = "root" // with the format behind a dot
)

// made is image.json: what was built, of what, and how to boot it. It holds no time and no path of the building machine, so that the same input
// gives the same bytes.
type made struct {
	Version  int      `json:"version"`
	Format   string   `json:"format"`
	Source   string   `json:"source,omitempty"` // digest of a container image
	Platform string   `json:"platform"`
	Kernel   string   `json:"kernel,omitempty"` // release of the modules
	Modules  []string `json:"modules,omitempty"`
	Cmdline  string   `json:"cmdline"`
	Services []string `json:"services"`
	// Configuration is what the input said of itself, as TOML: the lowest layer of the guest's.
	Configuration string   `json:"configuration,omitempty"`
	Ports         []uint16 `json:"ports,omitempty"` // TCP, that services wait for or the image exposes
	// MemoryMiB is what the guest needs at least to boot; its services come on top.
	MemoryMiB int64              `json:"memory-mib"`
	Stripped  []string           `json:"stripped,omitempty"`
	Notes     []string           `json:"notes,omitempty"`
	Warnings  []string           `json:"warnings,omitempty"`
	Files     map[string]fileSum `json:"files"`
	// QEMU is a command line that boots the image from within its folder, for a look without rouse.
	QEMU []string `json:"qemu"`
}

type fileSum struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func (b *buildCommand) disk() bool { return b.Format == "ext4" || b.Format == "squashfs" }

// write makes the folder. What another format left there goes first: a bake would attach it.
func (b *buildCommand) write(ctx context.Context, p *plan, img *image.Image) (*made, error) {
	if err := os.MkdirAll(b.Output, 0o755); err != nil {
		return nil, err
	}
	for _, old := range []string{vmm.DisksFile, imageFile, rootFile + ".ext4", rootFile + ".squashfs", "firecracker.json", "cloud-hypervisor.json"} {
		if err := os.Remove(filepath.Join(b.Output, old)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	m := b.describe(p, img)
	if err := b.writeFiles(ctx, p, img, m); err != nil {
		return nil, err
	}
	m.Warnings = append(m.Warnings, img.Warnings...) // writing adds some
	m.MemoryMiB = b.memory(m, img)
	m.QEMU = b.qemu(m, p)
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	return m, replaceFile(filepath.Join(b.Output, imageFile), func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err })
}

func (b *buildCommand) describe(p *plan, img *image.Image) *made {
	m := &made{Version: 1, Format: b.Format, Kernel: img.Release, Modules: img.Modules, Cmdline: b.cmdline(), Services: []string{},
		Stripped: img.Stripped, Notes: p.notes, Files: map[string]fileSum{}}
	_, m.Configuration, _ = strings.Cut(p.generated, "\n") // without the line that says who wrote it
	m.Platform, _ = platformOf(p.spec.Init)                // image.New has read it
	for _, s := range p.cfg.Services {
		m.Services = append(m.Services, s.Name)
		if s.ReadyPort != 0 {
			m.Ports = append(m.Ports, s.ReadyPort)
		}
	}
	if p.container != nil {
		m.Source = p.container.Digest
		ports, _ := tcpPorts(p.container.Config) // a bad one is in the notes
		m.Ports = append(m.Ports, ports...)
	}
	slices.Sort(m.Ports)
	m.Ports = slices.Compact(m.Ports)
	return m
}

// cmdline is the kernel's, with the root where that is a disk. squashfs has no label to be found by: it is the first disk.
func (b *buildCommand) cmdline() string {
	words := strings.Fields(b.Cmdline)
	if !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "root=") }) {
		switch b.Format {
		case "ext4":
			words = append(words, "root=LABEL=rouse", "rw")
		case "squashfs":
			words = append(words, "root=/dev/vda", "overlayroot=tmpfs")
		}
	}
	return strings.Join(words, " ")
}

func (b *buildCommand) writeFiles(ctx context.Context, p *plan, img *image.Image, m *made) error {
	kernel, err := os.Open(b.Kernel)
	if err != nil {
		return err
	}
	defer kernel.Close()
	initrd := func(w io.Writer) error { return img.WriteCPIO(w, b.Format) }
	if b.disk() {
		early, err := image.New(b.early(p))
		if err != nil {
			return fmt.Errorf("initrd of the disk: %w", err)
		}
		defer early.Close()
		initrd = func(w io.Writer) error { return early.WriteCPIO(w, "none") }
		if err := b.writeDisk(ctx, p, img, m); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		fill func(io.Writer) error
	}{
		{vmm.KernelFile, func(w io.Writer) error { _, err := io.Copy(w, kernel); return err }},
		{vmm.InitrdFile, initrd},
		{vmm.CmdlineFile, func(w io.Writer) error { _, err := fmt.Fprintln(w, m.Cmdline); return err }},
	} {
		c := &counter{}
		if err := replaceFile(filepath.Join(b.Output, f.name), func(w io.Writer) error { *c = *newCounter(w); return f.fill(c) }); err != nil {
			return err
		}
		m.Files[f.name] = c.sum()
	}
	return nil
}

// early is the initrd that finds the disk, mounts it and goes on there. Kernels of distributions have the drivers as modules.
func (b *buildCommand) early(p *plan) image.Spec {
	s := image.Spec{Init: p.spec.Init, ModulesDir: b.Modules, Release: p.spec.Release, Optional: config.GuestModules(), Epoch: p.spec.Epoch, Signed: p.spec.Signed}
	s.Modules = []string{"virtio_blk", b.Format}
	if b.Format == "squashfs" {
		s.Modules = append(s.Modules, "overlay")
	}
	// Other hypervisors' disks.
	s.Optional = append(s.Optional, "virtio_scsi", "sd_mod", "nvme")
	return s
}

func (b *buildCommand) writeDisk(ctx context.Context, p *plan, img *image.Image, m *made) error {
	name := rootFile + "." + b.Format
	file := filepath.Join(b.Output, name)
	if err := img.WriteDisk(ctx, file, image.Disk{Format: b.Format, Free: p.free}); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	c := newCounter(io.Discard)
	if _, err := io.Copy(c, f); err != nil {
		return err
	}
	m.Files[name] = c.sum()
	text, err := json.Marshal([]vmm.Disk{{Path: name, Format: "raw", ReadOnly: b.Format == "squashfs"}})
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(b.Output, vmm.DisksFile), func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err })
}

// baseMemory is what kernel, rouse and a small service take, in MiB.
const baseMemory = 192

// memory is the least that the guest needs: an initrd is there twice while it is unpacked, with a quarter to spare for what rounding
// to pages takes.
func (b *buildCommand) memory(m *made, img *image.Image) int64 {
	const mib = 1 << 20
	need := m.Files[vmm.InitrdFile].Bytes
	if !b.disk() {
		need += img.Size() * 5 / 4
	} else {
		need *= 2
	}
	return max(256, (need/mib+baseMemory+63)/64*64)
}

// qemu boots the image by hand, with what rouse wants of a machine: vmgenid, and the control channel's port.
func (b *buildCommand) qemu(m *made, p *plan) []string {
	argv := []string{"qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-device", "vmgenid,guid=auto"}
	if m.Platform == "linux/arm64" {
		argv = []string{"qemu-system-aarch64", "-machine", "virt", "-cpu", "max"}
	}
	argv = append(argv, "-m", fmt.Sprint(m.MemoryMiB), "-nographic", "-no-reboot", "-kernel", vmm.KernelFile, "-initrd", vmm.InitrdFile,
		"-append", m.Cmdline+" console="+map[string]string{"linux/amd64": "ttyS0", "linux/arm64": "ttyAMA0"}[m.Platform]+" panic=-1 ip=10.0.2.15::10.0.2.2:255.255.255.0:::off")
	if b.disk() {
		disk := "if=virtio,format=raw,file=" + rootFile + "." + b.Format
		if b.Format == "squashfs" {
			disk += ",readonly=on"
		}
		argv = append(argv, "-drive", disk)
	}
	forward := "user,id=n0"
	for _, port := range m.Ports[:min(len(m.Ports), 8)] {
		forward += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", hostPort(port), port)
	}
	return append(argv, "-netdev", forward, "-device", "virtio-net-pci,netdev=n0,romfile=",
		"-chardev", "socket,id=c0,path=control.sock,server=on,wait=off", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=c0,name=org.qemu.guest_agent.0")
}

// hostPort is one that needs no root.
func hostPort(port uint16) uint16 {
	if port < 1024 {
		return port + 8000
	}
	return port
}

// text is what people read.
func (m *made) text(folder string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", folder)
	if root := m.Files[rootFile+"."+m.Format]; root.Bytes > 0 {
		fmt.Fprintf(&b, "%.1f MB %s root, ", float64(root.Bytes)/1e6, m.Format)
	}
	fmt.Fprintf(&b, "%.1f MB initrd, kernel %s, %d modules\n", float64(m.Files[vmm.InitrdFile].Bytes)/1e6, m.Kernel, len(m.Modules))
	fmt.Fprintf(&b, "services: %s\n", strings.Join(m.Services, ", "))
	if m.Configuration != "" {
		fmt.Fprintf(&b, "of the input itself:\n    %s\n", strings.ReplaceAll(strings.TrimSpace(m.Configuration), "\n", "\n    "))
	}
	fmt.Fprintf(&b, "command line: %s\n", m.Cmdline)
	fmt.Fprintf(&b, "by hand: cd %s && %s\n", shellQuote(folder), shellLine(m.QEMU))
	fmt.Fprintf(&b, "next: rouse bake %s -o SNAPSHOT", shellQuote(folder))
	if m.MemoryMiB > 256 {
		fmt.Fprintf(&b, " --memory %d", m.MemoryMiB)
	}
	for _, port := range m.Ports {
		fmt.Fprintf(&b, " -p %d", port)
	}
	return b.String()
}

func shellLine(argv []string) string {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = shellQuote(a)
	}
	return strings.Join(quoted, " ")
}

// shellQuote leaves plain words as they are.
func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,@+%"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
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

// counter counts and digests what goes by.
type counter struct {
	w io.Writer
	n int64
	h interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func newCounter(w io.Writer) *counter { return &counter{w: w, h: sha256.New()} }

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.h.Write(p[:n])
	return n, err
}

func (c *counter) sum() fileSum { return fileSum{c.n, hex.EncodeToString(c.h.Sum(nil))} }
