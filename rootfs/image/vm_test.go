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
	"udp_diag", "unix_diag", "af_packet_diag", "af_packet"}

func userNet() []string {
	return []string{"-netdev", "user,id=n0,restrict=on,guestfwd=tcp:10.0.2.100:7-cmd:printf hello", "-device", "virtio-net-pci,netdev=n0,romfile="}
}

func TestBoot(t *testing.T) {
	dir := kernels(t)
	bootinit := buildInit(t, "bootinit")
	for _, c := range []struct{ kernel, compress string }{{"6.1", "gzip"}, {"6.1", "none"}, {"6.12", "zstd"}} {
		t.Run(c.kernel+"-"+c.compress, func(t *testing.T) {
			var b bytes.Buffer
			spec := Spec{Init: bootinit, ModulesDir: filepath.Join(dir, c.kernel, "modules"), Modules: guestModules, Compress: c.compress}
			if err := Build(&b, spec); err != nil {
				t.Fatal(err)
			}
			initrd := filepath.Join(t.TempDir(), "initrd")
			if err := os.WriteFile(initrd, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			console := run(t, filepath.Join(dir, c.kernel, "vmlinuz"), initrd, `rouse.test="a b" rouse.test=c`, userNet()...)
			t.Logf("%d KiB, %.1f s", b.Len()>>10, time.Since(start).Seconds())
			results(t, console, 15)
			if strings.Contains(console, "Kernel panic") {
				t.Error("kernel panic")
			}
		})
	}
}
