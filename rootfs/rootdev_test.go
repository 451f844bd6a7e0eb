package rootfs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseRoot(t *testing.T) {
	for _, c := range []struct {
		line string
		want Root
		ok   bool
	}{
		{"quiet", Root{}, false},
		{"root=/dev/vda1", Root{Device: "/dev/vda1", ReadOnly: true, Wait: DeviceTimeout}, true},
		{"root=LABEL=x rw rootfstype=ext4 rootflags=noload,data=ordered", Root{Device: "LABEL=x", Type: "ext4", Options: "noload,data=ordered", Wait: DeviceTimeout}, true},
		{"root=UUID=1-2 overlayroot=tmpfs rootdelay=5", Root{Device: "UUID=1-2", ReadOnly: true, Overlay: true, Wait: DeviceTimeout + 5*time.Second}, true},
		{"root=vda overlayroot=tmpfs overlayroot=disabled", Root{Device: "vda", ReadOnly: true, Wait: DeviceTimeout}, true},
		{"root=share rootfstype=virtiofs rw", Root{Device: "share", Type: "virtiofs", Wait: DeviceTimeout}, true},
	} {
		got, ok, err := ParseRoot(ParseCmdline(c.line))
		if err != nil || ok != c.ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v, %v", c.line, got, ok, err)
		}
	}
	for _, bad := range []string{"root=/etc/passwd", "root=FOO=1", "root=LABEL=", "root=vda overlayroot=maybe", "root=vda rootdelay=x", "root=/dev/../etc/x"} {
		if _, _, err := ParseRoot(ParseCmdline(bad)); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

func TestParseMount(t *testing.T) {
	for _, c := range []struct {
		source, target, kind, options string
		want                          Mount
	}{
		{"LABEL=data", "/srv", "auto", "ro,nofail,noatime,x-rouse.note", Mount{Flags: ReadOnly | NoAtime, NoFail: true}},
		{"x", "/a", "tmpfs", "defaults,size=10m,mode=0700", Mount{Options: "size=10m,mode=0700"}},
		{"/a", "/b", "", "bind,ro,rw,nosuid", Mount{Flags: Bind | NoSetuid}},
		{"/a", "/b", "none", "rbind", Mount{Flags: Bind | Recursive}},
	} {
		c.want.Source, c.want.Target, c.want.Type, c.want.Mode = c.source, c.target, c.kind, modeDirectory
		if got, err := ParseMount(c.source, c.target, c.kind, c.options); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %+v, %v", c.want, got, err)
		}
	}
	for _, bad := range [][3]string{{"x", "rel", "tmpfs"}, {"x", "/", "tmpfs"}, {"x", "/a", ""}} {
		if _, err := ParseMount(bad[0], bad[1], bad[2], ""); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

// The oracle is blkid, on file systems that their own tools have made.
func TestProbeAsBlkid(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if _, err := exec.LookPath("blkid"); err != nil {
		t.Skip("blkid is missing: install util-linux")
	}
	for _, c := range []struct {
		name string
		args []string
		size int64
	}{
		{"ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4", "-L", "my label"}, 8 << 20},
		{"ext2-no-label", []string{"mke2fs", "-q", "-F", "-t", "ext2"}, 8 << 20},
		{"vfat32", []string{"mkfs.vfat", "-F", "32", "-n", "CIDATA"}, 64 << 20},
		{"vfat16", []string{"mkfs.vfat", "-F", "16", "-n", "CIDATA"}, 64 << 20},
		{"xfs", []string{"mkfs.xfs", "-q", "-L", "label"}, 512 << 20},
		{"btrfs", []string{"mkfs.btrfs", "-q", "-L", "my label"}, 256 << 20},
		{"erofs", []string{"mkfs.erofs", "--quiet"}, 0},
		{"squashfs", []string{"mksquashfs"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath(c.args[0]); err != nil {
				t.Skip(c.args[0] + " is missing")
			}
			file := filepath.Join(t.TempDir(), "disk")
			args := append(c.args[1:], file)
			if c.size > 0 {
				makeSparse(t, file, c.size)
			} else if c.name == "squashfs" {
				args = append([]string{t.TempDir()}, args...)
			} else {
				args = append(args, t.TempDir())
			}
			if b, err := exec.Command(c.args[0], args...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, b)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, want := Probe(f), blkid(t, file); got.Type != strings.Replace(want.Type, "ext2", "ext4", 1) || got.Label != want.Label || got.UUID != want.UUID {
				t.Errorf("%+v, blkid says %+v", got, want)
			}
		})
	}
}

func makeSparse(t *testing.T, file string, size int64) {
	t.Helper()
	f, err := os.Create(file)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func blkid(t *testing.T, file string) Filesystem {
	t.Helper()
	var fs Filesystem
	for key, to := range map[string]*string{"TYPE": &fs.Type, "LABEL": &fs.Label, "UUID": &fs.UUID} {
		b, _ := exec.Command("blkid", "-p", "-o", "value", "-s", key, file).Output() // fails if there is no such value
		*to = strings.TrimSpace(string(b))
	}
	return fs
}

func TestDeviceMatches(t *testing.T) {
	fs := Filesystem{Label: "data", UUID: "ab-cd"}
	uevent := "MAJOR=254\nPARTNAME=root\nPARTUUID=aa-BB\n"
	for text, want := range map[string]bool{"LABEL=data": true, "LABEL=dat": false, "UUID=AB-CD": true, "UUID=x": false, "PARTLABEL=root": true, "PARTLABEL=roo": false,
		"PARTUUID=AA-bb": true, "/dev/vda": false} {
		d, err := ParseDevice(text)
		if err != nil || d.matches(fs, uevent) != want || d.String() != text {
			t.Errorf("%s: %v, %v, %s", text, d.matches(fs, uevent), err, d)
		}
	}
	if (DeviceSpec{"UUID", ""}).matches(Filesystem{}, "") {
		t.Error("a device without UUID matches the empty one")
	}
}

func FuzzProbe(f *testing.F) {
	b := make([]byte, 70000)
	copy(b[1024+0x38:], "\x53\xef")
	f.Add(b, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, shift int64) {
		fs := Probe(bytes.NewReader(b))
		if strings.ContainsRune(fs.Label+fs.UUID, 0) || len(fs.Label) > 256 || fs.Type == "" && fs != (Filesystem{}) {
			t.Fatalf("%+v", fs)
		}
	})
}

func FuzzParseMount(f *testing.F) {
	f.Add("LABEL=x", "/a", "ext4", "ro,nofail,size=1")
	f.Fuzz(func(t *testing.T, source, target, kind, options string) {
		m, err := ParseMount(source, target, kind, options)
		if err == nil && (m.Target == "/" || m.Target[0] != '/' || strings.Contains(","+m.Options+",", ",nofail,")) {
			t.Fatalf("%+v", m)
		}
	})
}
