//go:build vm

package image

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// kernels is where internal/vmtest/fetch-kernels.sh puts them.
func kernels(t *testing.T) string {
	dir := os.Getenv("ROUSE_KERNELS")
	if dir == "" {
		dir = "../../out/kernels"
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no kernels in %s: run internal/vmtest/fetch-kernels.sh or set ROUSE_KERNELS", dir)
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is missing: install Debian's qemu-system-x86")
	}
	return dir
}

// run is a QEMU that boots kernel and initrd, and returns what it said on the console when it has powered off.
func run(t *testing.T, kernel, initrd, cmdline string, more ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	args := append([]string{"-accel", "tcg", "-m", "512", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
		"-kernel", kernel, "-append", "console=ttyS0 panic=-1 quiet " + cmdline, "-serial", "stdio"}, more...)
	if initrd != "" {
		args = append(args, "-initrd", initrd)
	}
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu: %v\n%s", err, out)
	}
	return string(out)
}

func buildInit(t *testing.T, name string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/"+name)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, b)
	}
	return out
}

// results fails the test for every "TEST name:" line that is not ok, and if fewer than want are there.
func results(t *testing.T, console string, want int) {
	t.Helper()
	lines := regexp.MustCompile(`(?m)TEST ([a-z0-9-]+): (.*?)\r?$`).FindAllStringSubmatch(console, -1)
	if len(lines) != want {
		t.Errorf("%d results, want %d", len(lines), want)
	}
	for _, l := range lines {
		if l[2] != "ok" {
			t.Errorf("%s: %s", l[1], l[2])
		}
	}
	if t.Failed() {
		t.Logf("console:\n%s", console)
	}
}

var guestModules = []string{"fuse", "virtio_pci", "virtio_console", "virtio_net", "nf_tables", "nft_ct", "nf_conntrack", "inet_diag", "tcp_diag",
	"udp_diag", "unix_diag", "af_packet_diag", "af_packet", "qemu_fw_cfg"}

func devices() []string {
	return []string{"-netdev", "user,id=n0,restrict=on,guestfwd=tcp:10.0.2.100:7-cmd:printf hello", "-device", "virtio-net-pci,netdev=n0,romfile=",
		"-smbios", "type=11,value=io.systemd.credential:smbios=one", "-fw_cfg", "name=opt/io.systemd.credentials/fw,string=two", "-fw_cfg", "name=opt/rouse/rouse.toml,string=three"}
}

func TestBoot(t *testing.T) {
	dir := kernels(t)
	bootinit := buildInit(t, "bootinit")
	for _, c := range []struct{ kernel, compress, decompress string }{{"6.1", "gzip", ""}, {"6.1", "none", ""}, {"6.12", "zstd", ""}, {"6.12", "zstd", "yes"}} {
		t.Run(c.kernel+"-"+c.compress+"-"+c.decompress, func(t *testing.T) {
			var b bytes.Buffer
			spec := Spec{Init: bootinit, ModulesDir: filepath.Join(dir, c.kernel, "modules"), Modules: guestModules, Compress: c.compress, Decompress: c.decompress}
			if err := Build(&b, spec); err != nil {
				t.Fatal(err)
			}
			initrd := filepath.Join(t.TempDir(), "initrd")
			if err := os.WriteFile(initrd, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			console := run(t, filepath.Join(dir, c.kernel, "vmlinuz"), initrd, `rouse.test="a b" rouse.test=c`, devices()...)
			t.Logf("%d KiB, %.1f s", b.Len()>>10, time.Since(start).Seconds())
			results(t, console, 16)
			if strings.Contains(console, "Kernel panic") {
				t.Error("kernel panic")
			}
		})
	}
}

// disks writes the root in both formats, and a data disk labelled data.
func disks(t *testing.T, rootinit string) (ext4, squashfs, data string) {
	t.Helper()
	dir := t.TempDir()
	i, err := New(Spec{Init: rootinit, Files: []File{{Path: "/on-disk", Data: []byte("x"), Mode: 0o640, UID: 7, GID: 8}}})
	must(t, err)
	defer i.Close()
	ext4, squashfs, data = filepath.Join(dir, "ext4"), filepath.Join(dir, "squashfs"), filepath.Join(dir, "data")
	must(t, i.WriteDisk(t.Context(), ext4, Disk{Format: "ext4"}))
	must(t, i.WriteDisk(t.Context(), squashfs, Disk{Format: "squashfs"}))
	j, err := New(Spec{Init: rootinit, Files: []File{{Path: "/note", Data: []byte("data disk")}}})
	must(t, err)
	defer j.Close()
	must(t, j.WriteDisk(t.Context(), data, Disk{Format: "ext4", Label: "data"}))
	return ext4, squashfs, data
}

func drive(file string) []string {
	return []string{"-drive", "if=virtio,format=raw,snapshot=on,file=" + file}
}

// The data disk is attached first, so that device names alone would lead to the wrong one.
func TestRootDevices(t *testing.T) {
	dir := kernels(t)
	needTool(t, "mke2fs", "e2fsprogs")
	needTool(t, "sqfstar", "squashfs-tools")
	rootinit := buildInit(t, "rootinit")
	ext4, squashfs, data := disks(t, rootinit)
	for _, c := range []struct{ name, kernel, disk, cmdline string }{
		{"ext4-label", "6.1", ext4, "root=LABEL=rouse rw"},
		{"ext4-readonly", "6.12", ext4, "root=LABEL=rouse rouse.test=readonly"},
		{"squashfs-overlay", "6.1", squashfs, "root=/dev/vdb overlayroot=tmpfs"},
		{"squashfs-stay", "6.12", squashfs, "root=/dev/vdb rouse.test=readonly rouse.test=stay"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			must(t, Build(&b, Spec{Init: rootinit, ModulesDir: filepath.Join(dir, c.kernel, "modules"),
				Modules: []string{"virtio_blk", "virtio_pci", "squashfs", "overlay"}, Files: []File{{Path: "/only-in-initramfs"}}}))
			initrd := write(t, filepath.Join(t.TempDir(), "initrd"), b.String(), 0o600)
			console := run(t, filepath.Join(dir, c.kernel, "vmlinuz"), initrd, c.cmdline, append(drive(data), drive(c.disk)...)...)
			want := 5
			if strings.HasSuffix(c.name, "stay") {
				want = 6 // the first stage reports as well: it comes back
			}
			results(t, console, want)
		})
	}
}
