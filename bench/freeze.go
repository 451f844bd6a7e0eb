package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"rouse/config"
	"rouse/control"
	"rouse/quiesce"
	"rouse/rootfs/image"
	"rouse/vmm"
)

// What is compared at one size, and what it grows with.
const (
	freezeServices    = 10
	freezeFilesystems = 4
)

// freezes compares what a host asks for before a snapshot: rouse's quiesce, QEMU's guest agent, which freezes file systems
// and no program, and systemd, which freezes units and no file system. All are asked in a guest of the same kernel.
func freezes(ctx context.Context, l *lab, r *Record) error {
	if err := l.freezeParts(ctx); err != nil {
		return err
	}
	services, filesystems := []int{1, freezeServices, 50}, "1,4,16"
	if l.quick {
		services, filesystems = []int{freezeServices}, "4"
	}
	for range l.repeat(2) {
		if err := l.freezeGuest(ctx, r, "qemu-ga", 0, filesystems); err != nil {
			return fmt.Errorf("qemu-ga: %w", err)
		}
		for _, n := range services {
			some := "4"
			if n == freezeServices {
				some = filesystems
			}
			if err := l.freezeGuest(ctx, r, "rouse", n, some); err != nil {
				return fmt.Errorf("rouse, %d services: %w", n, err)
			}
			if err := l.freezeGuest(ctx, r, "systemd", n, "0"); err != nil {
				return fmt.Errorf("systemd, %d services: %w", n, err)
			}
		}
	}
	return nil
}

// freezeParts builds the worker, which has to be static, and the file system that each disk of the guests begins as.
func (l *lab) freezeParts(ctx context.Context) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(l.dir, "worker"), "./bench")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{build, exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-b", "1024", "-N", "64", filepath.Join(l.dir, "ext4.img"), "4M")} {
		cmd.Env = append(cmd.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
		}
	}
	return nil
}

// freezeGuest is one boot, in which freezes with each number of file systems are measured.
func (l *lab) freezeGuest(ctx context.Context, r *Record, kind string, services int, filesystems string) error {
	worker := []string{freezeSelf, freezeArg, kind, strconv.Itoa(services), filesystems, strconv.Itoa(l.repeat(3))}
	s, cmdline, err := l.freezeImage(kind, services, worker)
	if err != nil {
		return err
	}
	img := filepath.Join(l.dir, "freeze.cpio")
	defer os.Remove(img)
	if err := writeImage(img, s); err != nil {
		return err
	}
	vm, err := vmm.Start(ctx, vmm.Config{Name: "bench", Extra: l.counting(ctx), Kernel: filepath.Join(l.kernel, "vmlinuz"), Initrd: img,
		Cmdline: "quiet console=ttyS0 panic=-1 " + cmdline, MemoryMiB: 768, GUID: "auto"})
	if err != nil {
		return err
	}
	defer vm.Close()
	if kind == "rouse" {
		return l.askRouse(ctx, r, vm, services, filesystems)
	}
	lines, err := l.console(ctx, vm)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if err := addFreeze(r, line); err != nil {
			return err
		}
	}
	return nil
}

// askRouse quiesces and releases a guest from outside. How long that took is in rouse's reports, by the guest's clock.
func (l *lab) askRouse(ctx context.Context, r *Record, vm *vmm.VM, services int, filesystems string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	client, err := vm.Control(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Do(ctx, "rouse-wait", map[string]any{"states": []string{"running"}, "timeout-ms": 300000}, nil); err != nil {
		return err
	}
	for _, text := range strings.Split(filesystems, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		for i := range l.repeat(3) + 1 {
			if err := freezeRound(ctx, r, client, services, n, i > 0); err != nil {
				return fmt.Errorf("%d file systems: %w", n, err)
			}
		}
	}
	return nil
}

// freezeRound counts unless it is to warm up.
func freezeRound(ctx context.Context, r *Record, client *control.Client, services, filesystems int, counts bool) error {
	ping, err := inGuest(ctx, client, freezeSelf, freezeArg, "rouse", strconv.Itoa(services), strconv.Itoa(filesystems), "15")
	if err != nil {
		return err
	}
	var frozen, thawed quiesce.Report
	if err := client.Do(ctx, "rouse-quiesce", nil, &frozen); err != nil {
		return err
	}
	if err := client.Do(ctx, "rouse-release", nil, &thawed); err != nil {
		return err
	}
	if frozen.Filesystems < filesystems {
		return fmt.Errorf("%d of %d file systems were frozen", frozen.Filesystems, filesystems)
	}
	if counts {
		addPhases(r, "freeze", services, filesystems, &frozen, ping)
		addPhases(r, "thaw", services, filesystems, &thawed, ping)
	}
	return nil
}

// addPhases tells at one size what each phase took, and adds up those that services and those that file systems take. ping is what the
// asker waits for besides.
func addPhases(r *Record, half string, services, filesystems int, report *quiesce.Report, ping float64) {
	took := map[string]float64{}
	for _, p := range report.Phases {
		took[p.Name] += float64(p.DurationNS) / 1e6
	}
	if services == freezeServices && filesystems == freezeFilesystems {
		r.add("rouse, the whole", 0, half, "ms", float64(report.DurationNS)/1e6+ping)
		for _, name := range []string{"hold", "drain", "shut", "barrier", "settle", "freeze", "verify", "sync", "thaw", "open"} {
			if ms, ok := took[name]; ok {
				r.add("rouse: "+name, 0, half, "ms", ms)
			}
		}
	}
	if filesystems == freezeFilesystems {
		r.add("rouse", services, half+" services", "ms", took["settle"]+took["freeze"]+took["thaw"])
	}
	if services == freezeServices && half == "freeze" {
		r.add("rouse", filesystems, half+" file systems", "ms", took["sync"])
	}
}

// inGuest runs a program to its end and reads the number that it prints.
func inGuest(ctx context.Context, client *control.Client, path string, args ...string) (float64, error) {
	var started struct{ PID int }
	if err := client.Do(ctx, "guest-exec", map[string]any{"path": path, "arg": args, "capture-output": true}, &started); err != nil {
		return 0, err
	}
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		var status struct {
			Exited   bool
			ExitCode int
			Out      []byte `json:"out-data"`
			Err      []byte `json:"err-data"`
		}
		if err := client.Do(ctx, "guest-exec-status", map[string]any{"pid": started.PID}, &status); err != nil {
			return 0, err
		}
		if status.Exited {
			tick.Stop()
			number, err := strconv.ParseFloat(strings.TrimSpace(string(status.Out)), 64)
			if status.ExitCode != 0 || err != nil {
				return 0, fmt.Errorf("%s ended with %d: %s%s", path, status.ExitCode, status.Out, status.Err)
			}
			return number, nil
		}
		<-tick.C
	}
}

// As Debian's, without what only a whole system has.
const (
	systemBusConfig = `<busconfig><type>system</type><listen>unix:path=` + systemBus + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`
	dbusSocket  = "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=" + systemBus + "\n"
	dbusService = "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n[Service]\n" +
		"ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation\n"
)

// freezeImage is the smallest guest in which kind can be asked.
func (l *lab) freezeImage(kind string, services int, worker []string) (s image.Spec, cmdline string, err error) {
	s = image.Spec{Init: filepath.Join(l.dir, "worker"), Compress: "none"}
	switch kind {
	case "rouse":
		s.Init, cmdline = l.bin("init"), "rdinit=/init"
		s.ModulesDir, s.Optional = filepath.Join(l.kernel, "modules"), config.GuestModules()
		s.Config = []byte("quiesce.freeze = [\"all\"]\nquiesce.watchdog = \"0s\"\ncontrol.exec = true\n")
		for i := range services {
			s.Config = fmt.Appendf(s.Config, "[[service]]\nname = \"s%d\"\nexec = [\"/probe\", \"sleep\"]\n", i)
		}
	case "qemu-ga":
		s.Dir, cmdline = filepath.Join(l.out, "peers", "qemu-ga"), "rdinit="+freezeSelf+" -- "+strings.Join(worker[1:], " ")
	case "systemd":
		s.Dir, cmdline = filepath.Join(l.out, "peers", "systemd-dbus"), "rdinit=/lib/systemd/systemd"
		s.Files = append(systemd(services), systemdUnit("probe", strings.Join(worker, " ")),
			text("/usr/share/dbus-1/system.conf", systemBusConfig), text("/etc/systemd/system/dbus.socket", dbusSocket),
			text("/etc/systemd/system/dbus.service", dbusService), link("/etc/systemd/system/default.target.wants/dbus.service", "../dbus.service"))
	}
	module, err := filepath.Glob(filepath.Join(l.kernel, "modules/lib/modules/*/kernel/drivers/block/brd.ko.xz"))
	if err != nil || len(module) != 1 {
		return s, "", fmt.Errorf("the kernel has no module brd.ko.xz: %v", module)
	}
	s.Files = append(s.Files,
		image.File{Path: freezeSelf, Source: filepath.Join(l.dir, "worker"), Mode: 0o755}, image.File{Path: "/probe", Source: l.probe, Mode: 0o755},
		image.File{Path: freezeModule, Source: module[0]}, image.File{Path: freezeDisk, Source: filepath.Join(l.dir, "ext4.img")})
	return s, cmdline, nil
}

// addFreeze reads a line of the worker: what was frozen how, in a guest of how many services and file systems, and the ms.
func addFreeze(r *Record, line string) error {
	fields := strings.Split(line, "\t")
	if fields[0] != "FREEZE" {
		return nil
	}
	if len(fields) != 6 {
		return fmt.Errorf("line of the worker: %q", line)
	}
	services, err1 := strconv.Atoi(fields[2])
	filesystems, err2 := strconv.Atoi(fields[3])
	ms, err3 := strconv.ParseFloat(fields[5], 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("line of the worker: %q: %w", line, err)
	}
	name, half := fields[1], fields[4]
	if name == syncAlone && half == "thaw" {
		return nil
	}
	if services == freezeServices || filesystems == freezeFilesystems {
		r.add(name, 0, half, "ms", ms)
	}
	if services > 0 {
		r.add(name, services, half+" services", "ms", ms)
	} else {
		r.add(name, filesystems, half+" file systems", "ms", ms)
	}
	return nil
}
