package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"rouse/config"
	"rouse/rootfs/image"
	"rouse/vmm"
)

// peer is an init, and how it is told to run the probe as its first service.
type peer struct {
	name string
	// tree is the folder of out/peers with its files; rouse has none.
	tree string
	// rdinit is the program and arguments of the kernel command line.
	rdinit string
	// files are its configuration; services is how many more to run beside the probe.
	files func(services int) []image.File
	// binaries are what PID 1 executes, for their size: paths in the tree.
	binaries []string
	// supervises says if it can run more than one service.
	supervises bool
}

func text(path, content string) image.File {
	return image.File{Path: path, Data: []byte(content), Mode: 0o644}
}
func script(path, content string) image.File {
	return image.File{Path: path, Data: []byte(content), Mode: 0o755}
}
func link(path, target string) image.File {
	return image.File{Path: path, Link: target, Mode: fs.ModeSymlink | 0o777}
}

func nothing(int) []image.File { return nil }

// peers are compared in this order. Each gets the smallest configuration that runs the probe.
func peers() []peer {
	return []peer{
		{name: "rouse", supervises: true, rdinit: "/init"},
		{name: "tini", tree: "tini", rdinit: "/usr/bin/tini-static -- /probe", files: nothing, binaries: []string{"usr/bin/tini-static"}},
		{name: "dumb-init", tree: "dumb-init", rdinit: "/usr/bin/dumb-init -- /probe", files: nothing, binaries: []string{"usr/bin/dumb-init"}},
		{name: "busybox init", tree: "busybox", rdinit: "/sbin/init", files: busybox, binaries: []string{"bin/busybox"}, supervises: true},
		{name: "runit", tree: "runit", rdinit: "/lib/runit/runit-init", files: runit, binaries: []string{"lib/runit/runit-init", "sbin/runit", "usr/bin/runsvdir", "usr/bin/runsv"}, supervises: true},
		{name: "s6", tree: "s6", rdinit: "/usr/bin/s6-svscan -- /service", files: s6, binaries: []string{"usr/bin/s6-svscan", "usr/bin/s6-supervise"}, supervises: true},
		{name: "u-root init", tree: "u-root", rdinit: "/init", files: func(int) []image.File { return []image.File{link("/bin/uinit", "/probe")} }, binaries: []string{"init"}},
		{name: "systemd", tree: "systemd", rdinit: "/lib/systemd/systemd", files: systemd, binaries: []string{"lib/systemd/systemd"}, supervises: true},
	}
}

func busybox(services int) []image.File {
	inittab := "::once:/probe\n"
	for range services {
		inittab += "::respawn:/probe sleep\n"
	}
	return []image.File{link("/sbin/init", "/bin/busybox"), text("/etc/inittab", inittab)}
}

func runit(services int) []image.File {
	list := []image.File{
		script("/etc/runit/1", "#!/bin/sh\n"),
		script("/etc/runit/2", "#!/bin/sh\nexec /usr/bin/runsvdir /service\n"),
		link("/service/probe/run", "/probe"),
	}
	for i := range services {
		list = append(list, script(fmt.Sprintf("/service/s%d/run", i), "#!/bin/sh\nexec /probe sleep\n"))
	}
	return list
}

func s6(services int) []image.File {
	list := []image.File{link("/service/probe/run", "/probe")}
	for i := range services {
		list = append(list, script(fmt.Sprintf("/service/s%d/run", i), "#!/bin/sh\nexec /probe sleep\n"))
	}
	return list
}

// systemd starts nothing but the probe: no journal, no udev, none of the targets that a system has.
func systemd(services int) []image.File {
	wants := "[Unit]\nDefaultDependencies=no\nWants=probe.service"
	list := []image.File{systemdUnit("probe", "/probe"), text("/etc/machine-id", strings.Repeat("0123456789abcdef", 2)+"\n"), text("/etc/initrd-release", "ID=bench\n")}
	for i := range services {
		name := fmt.Sprintf("s%d", i)
		list = append(list, systemdUnit(name, "/probe sleep"))
		wants += " " + name + ".service"
	}
	return append(list, text("/etc/systemd/system/default.target", wants+"\n"), link("/etc/systemd/system/initrd.target", "default.target"))
}

func systemdUnit(name, command string) image.File {
	return text("/etc/systemd/system/"+name+".service", "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart="+command+"\n")
}

func rouseConfig(services int) []byte {
	const one = "[[service]]\nname = %q\nexec = %s\nsettle = \"off\"\n"
	// The probe looks at PID 1's memory, which services may not without asking.
	s := fmt.Sprintf(one, "probe", `["/probe"]`) + `capabilities = ["sys_ptrace", "sys_admin", "dac_override", "mknod", "kill", "syslog"]` + "\n"
	for i := range services {
		s += fmt.Sprintf(one, fmt.Sprintf("s%d", i), `["/probe", "sleep"]`)
	}
	return []byte(s)
}

// image builds the peer's initramfs.
func (l *lab) image(p peer, services int) (string, error) {
	// The probe stands in for /init where the peer has another place: the builder wants one.
	s := image.Spec{Init: l.probe, Compress: "none"}
	if p.tree == "" {
		s.Init, s.Config = l.bin("init"), rouseConfig(services)
	} else {
		s.Dir = filepath.Join(l.out, "peers", p.tree)
		s.Files = p.files(services)
		// Shells of scripts.
		s.Files = append(s.Files, image.File{Path: "/bin/busybox", Source: filepath.Join(l.out, "peers", "busybox", "bin", "busybox"), Mode: 0o755}, link("/bin/sh", "/bin/busybox"))
	}
	if p.name == "u-root init" {
		s.Init, s.Dir = filepath.Join(l.out, "peers", "u-root", "init"), ""
	}
	if p.tree == "" || p.name == "rouse" {
		s.ModulesDir = filepath.Join(l.kernel, "modules")
		s.Optional = config.GuestModules()
	}
	s.Files = append(s.Files, image.File{Path: "/probe", Source: l.probe, Mode: 0o755})
	path := filepath.Join(l.dir, strings.ReplaceAll(p.name, " ", "-")+"-"+strconv.Itoa(services)+".cpio")
	if err := writeImage(path, s); err != nil {
		return "", fmt.Errorf("image of %s: %w", p.name, err)
	}
	return path, nil
}

func writeImage(path string, s image.Spec) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := image.Build(f, s); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// first boots every init in turn, as often as repetitions are wanted: the kernel's hand-over to the first
// service, memory, and reaping.
func first(ctx context.Context, l *lab, r *Record) error {
	orphans := 10000
	if r.Quick {
		orphans = 500
	}
	for _, services := range []int{0, 50} {
		images := map[string]string{}
		for range l.repeat(2) {
			for _, p := range peers() {
				if services > 0 && !p.supervises || r.Quick && services == 0 && p.supervises && p.tree != "" {
					continue // what supervises is seen to work with many services
				}
				if images[p.name] == "" {
					img, err := l.image(p, services)
					if err != nil {
						return err
					}
					images[p.name] = img
				}
				words := fmt.Sprintf("probe.orphans=%d", orphans)
				if services > 0 {
					words = "probe.rest=3000"
				}
				if err := l.boot(ctx, r, p, images[p.name], services, words); err != nil {
					return err
				}
			}
		}
	}
	for _, p := range peers() {
		size, err := l.size(p)
		if err != nil {
			return err
		}
		r.add(p.name, 0, "binary", "bytes", size)
	}
	return nil
}

func (l *lab) size(p peer) (float64, error) {
	paths := []string{l.bin("init")}
	if p.tree != "" {
		paths = nil
		for _, b := range p.binaries {
			paths = append(paths, filepath.Join(l.out, "peers", p.tree, b))
		}
	}
	var all int64
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		all += info.Size()
	}
	return float64(all), nil
}

// boot is one boot, until the probe has said all. words are parameters for it.
func (l *lab) boot(ctx context.Context, r *Record, p peer, img string, services int, words string) error {
	init, arguments, _ := strings.Cut(p.rdinit, " ")
	cmdline := fmt.Sprintf("quiet console=ttyS0 panic=-1 rdinit=%s %s %s", init, words, arguments)
	vm, err := vmm.Start(ctx, vmm.Config{Name: "bench", Extra: l.counting(ctx), Kernel: filepath.Join(l.kernel, "vmlinuz"), Initrd: img, Cmdline: cmdline, MemoryMiB: 512, GUID: "auto"})
	if err != nil {
		return err
	}
	defer vm.Close()
	lines, err := l.console(ctx, vm)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	for _, line := range lines {
		var metric, unit string
		var value float64
		if n, _ := fmt.Sscanf(line, "BENCH %s %g %s", &metric, &value, &unit); n == 3 && metric != "end" {
			if unit == "us" {
				value, unit = value/1000, "ms"
			}
			unit = strings.ReplaceAll(unit, "_", " ")
			r.add(p.name, services, metric, unit, value)
		}
	}
	return nil
}

// counting makes emulated guests count instructions, one a nanosecond: the figures then do not depend on what else the
// machine does. Waiting costs what it costs, but no time of ours.
func (l *lab) counting(ctx context.Context) []string {
	if vmm.ProbeKVM(ctx) == nil {
		return nil
	}
	return []string{"-icount", "shift=0,sleep=off"}
}

// console waits for the probe's last line.
func (l *lab) console(ctx context.Context, vm *vmm.VM) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		text, err := os.ReadFile(vm.Console())
		if err != nil {
			return nil, err
		}
		if strings.Contains(string(text), "BENCH error") {
			return nil, fmt.Errorf("console:\n%s", tail(text))
		}
		if strings.Contains(string(text), "BENCH end") {
			tick.Stop()
			return strings.Split(strings.ReplaceAll(string(text), "\r", ""), "\n"), nil
		}
		select {
		case <-tick.C:
		case <-vm.Exited():
			return nil, fmt.Errorf("the guest ended; its console:\n%s", tail(text))
		case <-ctx.Done():
			return nil, fmt.Errorf("the probe did not run; console:\n%s", tail(text))
		}
	}
}

func tail(text []byte) []byte { return text[max(0, len(text)-2000):] }
