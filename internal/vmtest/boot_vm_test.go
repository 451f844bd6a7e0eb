//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rouse/config"
	"rouse/rootfs/image"
	"rouse/vmm"
)

// program builds one of the programs beside these tests, once a run.
func program(t testing.TB, name string) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	path := lab.Binary(name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := lab.goTool("build", "-o", path, "./internal/vmtest/"+name); err != nil {
		t.Fatal(err)
	}
	return path
}

var programs sync.Mutex

func need(t testing.TB, tool, pkg string) {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if _, err := exec.LookPath(filepath.Join(dir, tool)); err == nil {
			return
		}
	}
	t.Skipf("%s is missing: install Debian's %s", tool, pkg)
}

// lookConfig runs the program look once and lets the test read what it saw.
const lookConfig = `hostname = "disk"

[[service]]
name = "look"
exec = ["/usr/bin/look", "/etc/hosts", "/only-in-initramfs"]
oneshot = true
restart = "never"
`

// disk writes rouse with a configuration as a file system.
func disk(t *testing.T, series, format string) string {
	t.Helper()
	i, err := image.New(image.Spec{Init: lab.Binary("init"), Config: []byte(lookConfig), ModulesDir: filepath.Join(lab.Kernel(t, series), "modules"),
		Optional: append(config.GuestModules(), "overlay"), Files: []image.File{{Path: "/usr/bin/look", Source: program(t, "look"), Mode: 0o755}}})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	name := filepath.Join(t.TempDir(), format)
	if err := i.WriteDisk(t.Context(), name, image.Disk{Format: format}); err != nil {
		t.Fatal(err)
	}
	return name
}

// ramdisk is an image folder whose init may be another one than rouse; it has no configuration.
func ramdisk(t *testing.T, series, init string) string {
	t.Helper()
	kernel, dir := lab.Kernel(t, series), t.TempDir()
	var b bytes.Buffer
	err := image.Build(&b, image.Spec{Init: init, ModulesDir: filepath.Join(kernel, "modules"), Compress: "none",
		Optional: append(config.GuestModules(), "ext4", "squashfs", "overlay"),
		Files:    []image.File{{Path: "/only-in-initramfs", Data: []byte("x")}}})
	for name, data := range map[string][]byte{vmm.InitrdFile: b.Bytes(), vmm.CmdlineFile: []byte("quiet\n")} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
	}
	if err == nil {
		err = os.Symlink(filepath.Join(kernel, "vmlinuz"), filepath.Join(dir, vmm.KernelFile))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func bootDisk(t *testing.T, img, disk, words string) *vmm.VM {
	return Boot(t, img, func(c *vmm.Config) {
		c.Cmdline += " " + words
		if disk != "" {
			c.Extra = append(c.Extra, "-drive", "if=virtio,format=raw,snapshot=on,file="+disk)
		}
	})
}

// facts are the lines of the program look, by their first word.
func facts(t *testing.T, g *Guest) map[string]string {
	t.Helper()
	serviceDone(t, g, "look")
	var lines []string
	g.Do("rouse-log", map[string]any{"service": "look", "lines": 100}, &lines)
	found := map[string]string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		found[name] = value
	}
	if s, _ := g.Wait("running"); s.State != "running" {
		t.Errorf("state %s", s.State)
	}
	return found
}

// From an initramfs into a disk, with and without an overlay, and as the init of a disk that another initramfs has mounted.
func TestRootFilesystems(t *testing.T) {
	need(t, "mke2fs", "e2fsprogs")
	need(t, "sqfstar", "squashfs-tools")
	tests := []struct{ name, format, words, root, write string }{
		{"ext4 label", "ext4", "root=LABEL=rouse rw", "ext4 rw", "ok"},
		{"ext4 readonly", "ext4", "root=/dev/vda", "ext4 ro", "refused"},
		{"squashfs overlay", "squashfs", "root=/dev/vda overlayroot=tmpfs", "overlay rw", "ok"},
		{"squashfs readonly", "squashfs", "root=/dev/vda", "squashfs ro", "refused"},
		{"init of ext4", "ext4", "root=LABEL=rouse rw test=handover", "ext4 rw", "ok"},
		{"init of squashfs overlay", "squashfs", "root=/dev/vda overlayroot=tmpfs test=handover", "overlay rw", "ok"},
	}
	forKernels(t, func(t *testing.T, series string) {
		disks := map[string]string{"ext4": disk(t, series, "ext4"), "squashfs": disk(t, series, "squashfs")}
		images := map[bool]string{false: ramdisk(t, series, lab.Binary("init")), true: ramdisk(t, series, program(t, "handover"))}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				vm := bootDisk(t, images[strings.Contains(tt.words, "handover")], disks[tt.format], tt.words)
				g := Talk(t, vm)
				got := facts(t, g)
				if got["root"] != tt.root || got["write"] != tt.write || got["tmp"] != "ok" || got["hostname"] != "disk" ||
					!strings.Contains(got["/etc/hosts"], "127.0.1.1 disk") || got["/only-in-initramfs"] != "missing" {
					t.Errorf("a service sees %q", got)
				}
				_ = g.Try("guest-shutdown", map[string]string{"mode": "powerdown"}, nil) // the answer may not come any more
				ended(t, vm)
			})
		}
	})
}

func ended(t *testing.T, vm *vmm.VM) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	select {
	case <-vm.Exited():
	case <-ctx.Done():
		t.Error("QEMU still runs")
	}
	if strings.Contains(Console(vm), "Kernel panic") {
		t.Error("the kernel panicked")
	}
}

// A root that is not there, or is none, ends the guest with the reason on the console.
func TestBrokenRootPowersOff(t *testing.T) {
	need(t, "mke2fs", "e2fsprogs")
	good := disk(t, "6.12", "ext4")
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	torn := append([]byte(nil), text[:1<<20]...) // the superblock promises more than there is
	tests := []struct{ name, disk, words, want string }{
		{"missing", good, "root=LABEL=other", `device LABEL=other: not there within 10s; there are: /dev/vda (ext4 label "rouse"`},
		{"no disk", "", "root=/dev/vda", "device /dev/vda: not there within 10s"},
		{"empty", write("empty", make([]byte, 1<<20)), "root=/dev/vda", "/dev/vda holds no file system that is known"},
		{"cut off", write("torn", torn), "root=/dev/vda", "mount /tmp/newroot (the root)"},
		{"wrong type", good, "root=/dev/vda rootfstype=squashfs", "mount /tmp/newroot (the root)"},
		{"unknown type", good, "root=/dev/vda rootfstype=zfs", "this kernel has no file system zfs"},
		{"bad name", good, "root=/export", "root=/export: device"},
		{"bad overlay", good, "root=/dev/vda overlayroot=disk", "overlayroot=disk: want tmpfs or disabled"},
	}
	img := ramdisk(t, "6.12", lab.Binary("init"))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vm := bootDisk(t, img, tt.disk, tt.words)
			ended(t, vm)
			if text := Console(vm); !strings.Contains(text, "reason: ") || !strings.Contains(text, tt.want) {
				t.Errorf("console lacks %q:\n%s", tt.want, text)
			}
		})
	}
}
