package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// program is a minimal ELF executable, static unless loader is given. It is enough for every check, not for running.
func program(t *testing.T, machine elf.Machine, loader string) string {
	t.Helper()
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	if loader != "" {
		h.Phnum = 1
	}
	must(t, binary.Write(&b, binary.LittleEndian, h))
	if loader != "" {
		must(t, binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 120, Filesz: uint64(len(loader) + 1)}))
		b.WriteString(loader + "\x00")
	}
	return write(t, filepath.Join(t.TempDir(), "program"), b.String(), 0o755)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(text), 0o600))
	must(t, os.Chmod(name, mode))
	return name
}

type unpacked struct {
	cpio.Info
	text string
}

func unpack(t *testing.T, archive []byte) map[string]unpacked {
	t.Helper()
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
	must(t, err)
	out := map[string]unpacked{}
	for _, r := range records {
		b, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
		must(t, err)
		if _, twice := out[r.Name]; twice {
			t.Errorf("%s is in the archive twice", r.Name)
		}
		if dir := filepath.Dir(r.Name); dir != "." {
			if _, ok := out[dir]; !ok {
				t.Errorf("%s comes before its folder", r.Name)
			}
		}
		out[r.Name] = unpacked{r.Info, string(b)}
	}
	return out
}

func build(t *testing.T, s Spec) map[string]unpacked {
	t.Helper()
	s.Compress = "none"
	var b bytes.Buffer
	must(t, Build(&b, s))
	return unpack(t, b.Bytes())
}

// modulesDir is a folder with three modules as depmod would index them.
func modulesDir(t *testing.T) string {
	dir := t.TempDir()
	base := filepath.Join(dir, "lib/modules/6.0-test")
	write(t, base+"/kernel/a.ko", "A", 0o644)
	write(t, base+"/kernel/b.ko.xz", "B", 0o644)
	write(t, base+"/kernel/unused.ko", "U", 0o644)
	write(t, base+"/modules.dep", "kernel/b.ko.xz: kernel/a.ko\nkernel/a.ko:\nkernel/unused.ko:\n", 0o644)
	write(t, base+"/modules.builtin", "kernel/fuse.ko\n", 0o644)
	return dir
}

func TestBuild(t *testing.T) {
	got := build(t, Spec{Init: program(t, elf.EM_X86_64, ""), Config: []byte("x = 1\n"), ModulesDir: modulesDir(t), Signed: true,
		Modules: []string{"b", "fuse"}, Optional: []string{"nope", "a"}, Epoch: 1234,
		Files: []File{{Path: "/srv/data", Data: []byte("hello"), UID: 7, GID: 8, Mode: 0o640}}})
	for _, c := range []struct {
		name string
		mode uint64
		text string
	}{
		{"init", 0o100755, ""},
		{"sbin/rousectl", 0o120777, "/init"},
		{"dev/console", 0o020600, ""},
		{"dev/null", 0o020666, ""},
		{"etc/rouse.toml", 0o100644, "x = 1\n"},
		{"tmp", 0o041777, ""},
		{"srv", 0o040755, ""},
		{"srv/data", 0o100640, "hello"},
		{"lib/modules/6.0-test/kernel/a.ko", 0o100644, "A"},
		{"lib/modules/6.0-test/modules.dep", 0o100644, "kernel/a.ko:\nkernel/b.ko.xz: kernel/a.ko\n"},
	} {
		e, ok := got[c.name]
		if !ok || e.Mode != c.mode || (c.text != "" && e.text != c.text) || e.MTime != 1234 {
			t.Errorf("%s: there %v, mode %o, text %q, time %d; want mode %o, %q", c.name, ok, e.Mode, e.text, e.MTime, c.mode, c.text)
		}
	}
	if c := got["dev/console"]; c.Rmajor != 5 || c.Rminor != 1 {
		t.Errorf("dev/console is %d:%d", c.Rmajor, c.Rminor)
	}
	if d := got["srv/data"]; d.UID != 7 || d.GID != 8 {
		t.Errorf("srv/data belongs to %d:%d", d.UID, d.GID)
	}
	if _, ok := got["lib/modules/6.0-test/kernel/unused.ko"]; ok {
		t.Error("a module that nobody needs is in the image")
	}
}

func TestDecompress(t *testing.T) {
	dir := t.TempDir()
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	_, err := g.Write([]byte("module a"))
	must(t, err)
	must(t, g.Close())
	z, err := zstd.NewWriter(&zst)
	must(t, err)
	_, err = z.Write([]byte("module b"))
	must(t, err)
	must(t, z.Close())
	for _, release := range []string{"5.14.0-x", "6.1.0-x"} {
		base := filepath.Join(dir, "lib/modules", release)
		write(t, base+"/a.ko.gz", gz.String(), 0o644)
		write(t, base+"/b.ko.zst", zst.String(), 0o644)
		write(t, base+"/modules.dep", "b.ko.zst: a.ko.gz\na.ko.gz:\n", 0o644)
	}
	for _, c := range []struct {
		release, how string
		signed       bool
		plain        bool
	}{{"5.14.0-x", "", true, true}, {"6.1.0-x", "auto", true, false}, {"6.1.0-x", "", false, true}, {"6.1.0-x", "yes", true, true}, {"5.14.0-x", "no", false, false}} {
		got := build(t, Spec{Init: program(t, elf.EM_X86_64, ""), ModulesDir: dir, Release: c.release, Modules: []string{"b"}, Decompress: c.how, Signed: c.signed})
		at := "lib/modules/" + c.release + "/"
		dep := "a.ko.gz:\nb.ko.zst: a.ko.gz\n"
		if c.plain {
			dep = "a.ko:\nb.ko: a.ko\n"
		}
		if got[at+"modules.dep"].text != dep || (got[at+"a.ko"].text == "module a") != c.plain || (got[at+"b.ko"].text == "module b") != c.plain {
			t.Errorf("%s %q: %q", c.release, c.how, got[at+"modules.dep"].text)
		}
	}
	if _, err := New(Spec{Init: program(t, elf.EM_X86_64, ""), ModulesDir: dir, Modules: []string{"b"}}); err == nil || !strings.Contains(err.Error(), "5.14.0-x, 6.1.0-x") {
		t.Errorf("two releases: %v", err)
	}
}

func TestFromFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/usr/sbin/tool", "#!/usr/sbin/tool2 -x\n", 0o755)
	must(t, os.Symlink("usr/sbin", dir+"/sbin"))
	must(t, os.Link(dir+"/usr/sbin/tool", dir+"/usr/sbin/again"))
	must(t, os.Chmod(write(t, dir+"/usr/sbin/su", "s", 0o755), 0o755|os.ModeSetuid))
	write(t, dir+"/etc/machine-id", "0123", 0o444)
	write(t, dir+"/etc/ssh/ssh_host_rsa_key", "secret", 0o600)
	write(t, dir+"/etc/passwd", "mine\n", 0o644)
	got := build(t, Spec{Init: program(t, elf.EM_X86_64, ""), Dir: dir})
	for _, c := range []struct {
		name, text string
		mode, link uint64
	}{
		{"sbin", "usr/sbin", 0o120777, 1},
		{"usr/sbin/rousectl", "/init", 0o120777, 1}, // through the link sbin
		{"usr/sbin/again", "", 0o100755, 2},
		{"usr/sbin/tool", "#!/usr/sbin/tool2 -x\n", 0o100755, 2}, // the last name has the content
		{"usr/sbin/su", "s", 0o104755, 1},
		{"etc/machine-id", "", 0o100444, 1},
		{"etc/passwd", "mine\n", 0o100644, 1},
	} {
		e, ok := got[c.name]
		if !ok || e.Mode != c.mode || e.text != c.text || e.NLink != c.link || e.UID != 0 {
			t.Errorf("%s: there %v, mode %o, text %q, links %d, uid %d", c.name, ok, e.Mode, e.text, e.NLink, e.UID)
		}
	}
	if got["usr/sbin/tool"].Ino != got["usr/sbin/again"].Ino {
		t.Error("hard links have different inode numbers")
	}
	if _, ok := got["etc/ssh/ssh_host_rsa_key"]; ok {
		t.Error("the host key is in the image")
	}
	kept := build(t, Spec{Init: program(t, elf.EM_X86_64, ""), Dir: dir, KeepIdentity: true})
	if kept["etc/machine-id"].text != "0123" || kept["etc/ssh/ssh_host_rsa_key"].text != "secret" {
		t.Error("KeepIdentity did not keep it")
	}
}

func TestSameBytes(t *testing.T) {
	s := Spec{Init: program(t, elf.EM_X86_64, ""), ModulesDir: modulesDir(t), Modules: []string{"b"}, Signed: true}
	var plain bytes.Buffer
	for _, format := range Formats {
		s.Compress = format
		var a, b bytes.Buffer
		must(t, Build(&a, s))
		must(t, Build(&b, s))
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("%s: two builds differ", format)
		}
		if format == "none" {
			plain = a
			continue
		}
		if !bytes.Equal(plain.Bytes(), decompress(t, format, a.Bytes())) {
			t.Errorf("%s: decompressed image differs from the plain one", format)
		}
	}
}

func decompress(t *testing.T, format string, b []byte) []byte {
	t.Helper()
	var r io.Reader
	var err error
	if format == "gzip" {
		r, err = gzip.NewReader(bytes.NewReader(b))
	} else {
		r, err = zstd.NewReader(bytes.NewReader(b))
	}
	must(t, err)
	out, err := io.ReadAll(r)
	must(t, err)
	return out
}

// What is refused, and that the error names both the file and a cure.
func TestRefused(t *testing.T) {
	static, dynamic := program(t, elf.EM_X86_64, ""), program(t, elf.EM_X86_64, "/lib64/ld.so")
	text := write(t, t.TempDir()+"/text", "text", 0o755)
	script := write(t, t.TempDir()+"/script", "#!/bin/none\n", 0o755)
	service := func(source string, mode os.FileMode) Spec {
		return Spec{Init: static, Commands: []string{"/app"}, Files: []File{{Path: "/app", Source: source, Mode: mode}}}
	}
	for _, c := range []struct {
		name string
		spec Spec
		want []string
	}{
		{"no init", Spec{}, []string{"init"}},
		{"init is not there", Spec{Init: "/nonexistent/init"}, []string{"/nonexistent/init"}},
		{"init is text", Spec{Init: text}, []string{text, "make build"}},
		{"init is dynamic", Spec{Init: dynamic}, []string{dynamic, "CGO_ENABLED=0"}},
		{"init for another machine", Spec{Init: static, Arch: "arm64"}, []string{static, "GOARCH=arm64"}},
		{"service is missing", Spec{Init: static, Commands: []string{"/app"}}, []string{"/app", "not in the image", "add it"}},
		{"service is relative", Spec{Init: static, Commands: []string{"app"}}, []string{"app", "absolute"}},
		{"service is not executable", service(static, 0o644), []string{"/app", "0644", "chmod +x"}},
		{"service is dynamic", service(dynamic, 0), []string{"/app", "/lib64/ld.so", "CGO_ENABLED=0"}},
		{"service is for another machine", service(program(t, elf.EM_AARCH64, ""), 0), []string{"/app", "EM_AARCH64", "amd64"}},
		{"service is text", service(text, 0), []string{"/app", "not an ELF"}},
		{"script without interpreter", service(script, 0), []string{"/app", "/bin/none", "not in the image"}},
		{"no such module", Spec{Init: static, ModulesDir: modulesDir(t), Modules: []string{"nope"}}, []string{"nope", "6.0-test"}},
		{"no modules", Spec{Init: static, ModulesDir: t.TempDir()}, []string{"lib/modules", "dpkg -x"}},
		{"relative file", Spec{Init: static, Files: []File{{Path: "x"}}}, []string{`"x"`, "slash"}},
		{"file below a file", Spec{Init: static, Files: []File{{Path: "/init/x"}}}, []string{"/init/x", "not a folder"}},
		{"no folder", Spec{Init: static, Dir: static}, []string{static, "not a folder"}},
		{"compression", Spec{Init: static, Compress: "rar"}, []string{"rar", "zstd"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Build(io.Discard, c.spec)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
}

// The running system's own dynamic programs and scripts are accepted when all they need is there.
func TestDynamicAccepted(t *testing.T) {
	dynamic := program(t, elf.EM_X86_64, "/lib64/ld.so")
	_, err := New(Spec{Init: program(t, elf.EM_X86_64, ""), Commands: []string{"/app", "/script"}, Files: []File{
		{Path: "/app", Source: dynamic}, {Path: "/script", Data: []byte("#! /app\n"), Mode: 0o755}, {Path: "/lib64", Link: "/usr/lib"},
		{Path: "/usr/lib/ld.so", Source: dynamic}}})
	must(t, err)
}

func TestResolve(t *testing.T) {
	tr := newTree()
	for _, e := range [][2]string{{"/a", "b"}, {"/loop", "loop"}, {"/usr/lib/x", "../../up"}, {"/lib", "/usr/lib"}, {"/srv", "../../.."}} {
		must(t, tr.put(e[0], &entry{mode: modeSymlink, link: e[1]}))
	}
	for _, c := range []struct {
		path string
		last bool
		want string
	}{
		{"/a", true, "/b"}, {"/a", false, "/a"}, {"a/c", true, "/b/c"}, {"/lib/x/y", true, "/up/y"},
		{"/loop", true, ""}, {"/loop", false, "/loop"}, {"/srv/x", true, "/x"}, {"/none/../q", true, "/q"}, {"/", true, "/"},
	} {
		if got, _ := tr.resolve(c.path, c.last); got != c.want {
			t.Errorf("resolve(%s, %v) = %q, want %q", c.path, c.last, got, c.want)
		}
	}
}

// A file that grows between New and WriteCPIO must not leave a broken archive behind without an error.
func TestChangedWhileBuilding(t *testing.T) {
	file := write(t, t.TempDir()+"/f", "one", 0o644)
	i, err := New(Spec{Init: program(t, elf.EM_X86_64, ""), Files: []File{{Path: "/f", Source: file}}})
	must(t, err)
	write(t, file, "longer", 0o644)
	if err := i.WriteCPIO(io.Discard, "none"); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("error %v, want one that says changed", err)
	}
}

// Building must not need more than the host has, whoever runs the test.
func TestThisTestBinary(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("no guest has this architecture: " + runtime.GOARCH)
	}
	self, err := os.Executable()
	must(t, err)
	if _, err := New(Spec{Init: self}); err != nil && !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Error(err)
	}
}

// The host's own shell, dynamically linked, is refused step by step until all it needs is there.
func TestHostShell(t *testing.T) {
	f, err := elf.Open("/bin/sh")
	if err != nil {
		t.Skipf("/bin/sh: %v", err)
	}
	defer f.Close()
	loader := interpreter(f)
	needed, err := f.ImportedLibraries()
	must(t, err)
	if loader == "" || len(needed) == 0 || f.Machine != elf.EM_X86_64 {
		t.Skip("/bin/sh is no dynamic amd64 program here")
	}
	s := Spec{Init: program(t, elf.EM_X86_64, ""), Commands: []string{"/bin/sh"}, Files: []File{{Path: "/bin/sh", Source: "/bin/sh"}}}
	refused := func(say string) {
		t.Helper()
		if _, err := New(s); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("error %v does not say %s", err, say)
		}
	}
	refused(loader)
	s.Files = append(s.Files, File{Path: loader, Source: loader})
	refused(needed[0])
	for _, lib := range needed {
		s.Files = append(s.Files, File{Path: "/usr/lib/" + lib, Data: []byte("any"), Mode: 0o644})
	}
	i, err := New(s)
	must(t, err)
	must(t, i.Close())
}
