package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// diskSpec has one of everything: owners, setuid, hard links, devices, FIFO, attributes, odd names.
func diskSpec(t *testing.T) Spec {
	layer := tarOf(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700}, // too narrow for a root
		tar.Header{Name: "usr/bin/tool", Uname: "tool", Mode: 0o4755, Uid: 7, Gid: 70000, PAXRecords: map[string]string{"SCHILY.xattr.user.note": "a\x00b", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		tar.Header{Name: "usr/bin/again", Typeflag: tar.TypeLink, Linkname: "usr/bin/tool"},
		tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
		tar.Header{Name: `odd "name" here`, Uname: "odd"},
		tar.Header{Name: "odd/<2>", Uname: "two", Mode: 0o640, Uid: 9}, tar.Header{Name: "odd/-f", Uname: "f", PAXRecords: map[string]string{"SCHILY.xattr.user.note": "f"}},
		tar.Header{Name: "odd/-r/", Typeflag: tar.TypeDir, Mode: 0o711}, tar.Header{Name: `odd/back\slash #1`, Uname: "b"},
		tar.Header{Name: "odd/<3>", Typeflag: tar.TypeLink, Linkname: "odd/<2>"},
		tar.Header{Name: "empty", Typeflag: tar.TypeReg})
	return Spec{Init: program(t, elf.EM_X86_64, ""), Layers: []Layer{layerOf(layer)}, Epoch: 1700000000}
}

func needTool(t *testing.T, name, debian string) string {
	t.Helper()
	p := findTool(name)
	if _, err := exec.LookPath(p); err != nil {
		t.Skipf("%s is missing: install %s", name, debian)
	}
	return p
}

func writeDisk(t *testing.T, s Spec, d Disk) string {
	t.Helper()
	i, err := New(s)
	must(t, err)
	defer i.Close()
	name := t.TempDir() + "/disk"
	must(t, i.WriteDisk(t.Context(), name, d))
	return name
}

func say(t *testing.T, name string, args ...string) string {
	t.Helper()
	b, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, b)
	}
	return string(b)
}

func TestExt4(t *testing.T) {
	debugfs, e2fsck := needTool(t, "debugfs", "e2fsprogs"), needTool(t, "e2fsck", "e2fsprogs")
	s := diskSpec(t)
	disk := writeDisk(t, s, Disk{Format: "ext4"})
	say(t, e2fsck, "-f", "-n", disk) // exit status 0: nothing to mend
	for _, c := range []struct{ command, want string }{
		{"stat /usr/bin/tool", "Mode:  04755"}, {"stat /usr/bin/tool", "User:     7   Group: 70000"}, {"stat /usr/bin/again", "Links: 2"},
		{"stat /usr/bin/tool", "security.capability"}, {"ea_get -x /usr/bin/tool user.note", "61 00 62"}, {"stat /dev/console", "Device major/minor number: 05:01"},
		{"stat /fifo", "Type: FIFO"}, {`cat "odd ""name"" here"`, "odd"}, {"stat /sbin/init", `Fast link dest: "/init"`}, {"stat /tmp", "Mode:  01777"},
		{"stat /usr/bin/tool", "mtime: 0x6553f100:00000000"}, {"show_super_stats -h", "rouse"}, {"stat /", "Mode:  0755"},
		{"stat /empty", "mtime: 0x6553f100:00000000"}, {"stat /empty", "atime: 0x6553f100:00000000"}, {"stat /empty", "ctime: 0x6553f100:00000000"}, {"stat /empty", "crtime: 0x6553f100:00000000"},
		{"stat /tmp", "crtime: 0x6553f100:00000000"}, {"stat /sbin/init", "mtime: 0x6553f100:00000000"}, {"stat /dev/console", "mtime: 0x6553f100:00000000"}, {"stat /", "mtime: 0x6553f100:00000000"},
		{"stat /empty", "Mode:  0644"}, {"stat /empty", "User:     0   Group:     0"}, {"stat /dev/null", "Mode:  0666"}, {"stat /root", "Mode:  0700"}, {"stat /init", "Mode:  0755"},
		{"stat /sbin/init", "Mode:  0777"},
		{"stat /odd/<2>", "Mode:  0640"}, {"stat /odd/<2>", "Links: 2"}, {"ea_get /odd/-f user.note", `"f"`}, {"stat /odd/-r", "Mode:  0711"}, {`cat "/odd/back\slash #1"`, "b"},
	} {
		if got := say(t, debugfs, "-R", c.command, disk); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\ndoes not say %q", c.command, got, c.want)
		}
	}
	again := writeDisk(t, s, Disk{Format: "ext4"})
	sameFiles(t, disk, again)
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	must(t, err)
	y, err := os.ReadFile(b)
	must(t, err)
	if !bytes.Equal(x, y) {
		n := 0
		for n < min(len(x), len(y)) && x[n] == y[n] {
			n++
		}
		t.Errorf("two builds differ: %d and %d bytes, first at %#x", len(x), len(y), n)
	}
}

func TestSquashfs(t *testing.T) {
	needTool(t, "sqfstar", "squashfs-tools")
	unsquashfs := needTool(t, "unsquashfs", "squashfs-tools")
	s := diskSpec(t)
	disk := writeDisk(t, s, Disk{Format: "squashfs"})
	list := say(t, unsquashfs, "-lln", "-UTC", disk)
	for _, want := range []string{"-rwsr-xr-x 7/70000", "crw------- 0/0", "prw------- 0/0", "drwxrwxrwt 0/0", `odd "name" here`, "2023-11-14 22:13 squashfs-root/tmp", "2023-11-14 22:13 squashfs-root\n", "squashfs-root/sbin/init -> /init", "drwxr-xr-x 0/0"} {
		if !strings.Contains(list, want) {
			t.Errorf("%s\ndoes not list %q", list, want)
		}
	}
	sameFiles(t, disk, writeDisk(t, s, Disk{Format: "squashfs"}))
}

// What goes out as a tar comes in as a layer, and is the same image.
func TestTarRoundTrip(t *testing.T) {
	i, err := New(diskSpec(t))
	must(t, err)
	defer i.Close()
	var one, two bytes.Buffer
	must(t, i.WriteTar(&one))
	s := diskSpec(t)
	s.Layers = []Layer{layerOf(one.Bytes())}
	j, err := New(s)
	must(t, err)
	defer j.Close()
	must(t, j.WriteTar(&two))
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the second image differs from the first")
	}
}

func TestDiskRefused(t *testing.T) {
	s := diskSpec(t)
	s.Files = []File{{Path: "/a\nb", Data: []byte("x")}}
	i, err := New(s)
	must(t, err)
	defer i.Close()
	dir := t.TempDir()
	if err := i.WriteDisk(t.Context(), dir+"/x", Disk{Format: "fat"}); err == nil || !strings.Contains(err.Error(), "squashfs") {
		t.Error(err)
	}
	needTool(t, "mke2fs", "e2fsprogs")
	if err := i.WriteDisk(t.Context(), dir+"/x", Disk{Format: "ext4"}); err == nil || !strings.Contains(err.Error(), "line break") {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestMissingToolNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	i, err := New(diskSpec(t))
	must(t, err)
	defer i.Close()
	err = i.WriteDisk(t.Context(), t.TempDir()+"/x", Disk{Format: "squashfs"})
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "install squashfs-tools") {
		t.Errorf("error %v", err)
	}
}
