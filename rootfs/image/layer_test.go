package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"
)

// tarOf makes a layer of headers; Xattrs and content ride in PAXRecords and in text.
func tarOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		text := h.Uname // the tests' content: no test looks at user names
		h.Uname = ""
		h.Size = int64(len(text))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, text)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func layerOf(b []byte) Layer {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func TestLayers(t *testing.T) {
	low := tarOf(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "usr/lib/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "usr/lib"},
		tar.Header{Name: "usr/lib/a", Uname: "low a", Uid: 5, Gid: 6, Mode: 0o4755},
		tar.Header{Name: "usr/lib/b", Typeflag: tar.TypeLink, Linkname: "lib/a"},
		tar.Header{Name: "gone/one", Uname: "1"}, tar.Header{Name: "gone/two", Uname: "2"},
		tar.Header{Name: "opaque/old", Uname: "old"}, tar.Header{Name: "opaque/sub/older", Uname: "older"},
		tar.Header{Name: "etc/machine-id", Uname: "id"}, tar.Header{Name: ".dockerenv"}, tar.Header{Name: "etc/hosts"},
		tar.Header{Name: "dev/console"}, // as docker export leaves it
		tar.Header{Name: "dev/zero", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5, Mode: 0o666},
		tar.Header{Name: "/from/root", Uname: "x"}, tar.Header{Name: ".wh..wh.plnk/7", Uname: "of AUFS"})
	high := tarOf(t,
		tar.Header{Name: "gone/.wh.one"},
		tar.Header{Name: "opaque/new", Uname: "new"}, tar.Header{Name: "opaque/.wh..wh..opq"}, tar.Header{Name: "opaque/later", Uname: "later"},
		tar.Header{Name: "lib/a", Uname: "high a"}, // through the lower layer's link
		tar.Header{Name: "usr/lib/c", Typeflag: tar.TypeLink, Linkname: "usr/lib/b"},
		tar.Header{Name: ".wh.nothing"})
	got := build(t, Spec{Init: program(t, elf.EM_X86_64, ""), Layers: []Layer{layerOf(low), layerOf(high)}})
	for name, text := range map[string]string{"usr/lib/a": "high a", "gone/two": "2", "opaque/new": "new", "opaque/later": "later", "from/root": "x",
		"etc/machine-id": "", "lib": "usr/lib"} {
		if e, ok := got[name]; !ok || e.text != text {
			t.Errorf("%s: there %v, %q; want %q", name, ok, e.text, text)
		}
	}
	for _, name := range []string{"gone/one", "gone/.wh.one", "opaque/old", "opaque/sub", "opaque/sub/older", "opaque/.wh..wh..opq", ".wh..wh.plnk", ".wh..wh.plnk/7", ".dockerenv"} {
		if _, ok := got[name]; ok {
			t.Errorf("%s is in the image", name)
		}
	}
	if b, c := got["usr/lib/b"], got["usr/lib/c"]; b.Ino != c.Ino || b.NLink != 2 || c.text != "low a" || b.Mode != 0o104755 || b.UID != 5 {
		t.Errorf("hard links b %+v, c %+v", b, c)
	}
	if !strings.Contains(got["etc/hosts"].text, "localhost") || got["dev/console"].Mode != 0o020600 || got["dev/zero"].Rminor != 5 {
		t.Errorf("hosts %q, console %o, zero %+v", got["etc/hosts"].text, got["dev/console"].Mode, got["dev/zero"])
	}
}

func TestTarFile(t *testing.T) {
	plain := tarOf(t, tar.Header{Name: "srv/x", Uname: "content"})
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	_, err := g.Write(plain)
	must(t, err)
	must(t, g.Close())
	z, err := zstd.NewWriter(&zst)
	must(t, err)
	_, err = z.Write(plain)
	must(t, err)
	must(t, z.Close())
	for name, b := range map[string][]byte{"plain": plain, "gzip": gz.Bytes(), "zstd": zst.Bytes()} {
		t.Run(name, func(t *testing.T) {
			file := write(t, t.TempDir()+"/f", string(b), 0o600)
			if got := build(t, Spec{Init: program(t, elf.EM_X86_64, ""), Layers: []Layer{TarFile(file)}}); got["srv/x"].text != "content" {
				t.Errorf("%+v", got["srv/x"])
			}
		})
	}
}

func TestLayerRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		tar  []byte
		want string
	}{
		{"no tar", []byte(strings.Repeat("x", 1024)), "layer 1: read tar"},
		{"cut off", tarOf(t, tar.Header{Name: "a", Uname: "content"})[:514], "a"},
		{"hard link to nothing", tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}), "a: hard link to b"},
		{"leads out", tarOf(t, tar.Header{Name: "a/../../b", Uname: "x"}), `has ".." in it`},
		{"leads out by a folder", tarOf(t, tar.Header{Name: "..", Typeflag: tar.TypeDir}), `has ".." in it`},
		{"hides its folder", tarOf(t, tar.Header{Name: "a/b"}, tar.Header{Name: "a/.wh."}), "a whiteout that names no file"},
		{"hides what is above", tarOf(t, tar.Header{Name: "a/b"}, tar.Header{Name: "a/.wh..."}), "a whiteout that names no file"},
		{"links in a circle", tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"}, tar.Header{Name: "b", Typeflag: tar.TypeSymlink, Linkname: "a"},
			tar.Header{Name: "a/x"}), "too many symbolic links"},
		{"name too long", tarOf(t, tar.Header{Name: strings.Repeat("n", 256)}), "more than 255 bytes"},
		{"path too long", tarOf(t, tar.Header{Name: strings.Repeat("long/", 820) + "x"}), "more than 4095 bytes"},
		{"link too long", tarOf(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("x", 4096)}), "more than 4095 bytes"},
		{"nobody's", tarOf(t, tar.Header{Name: "f", Uid: 1<<32 - 1}), "is no user and group"},
		{"below zero", tarOf(t, tar.Header{Name: "f", Gid: -2, Format: tar.FormatGNU}), "is no user and group"},
		{"device", tarOf(t, tar.Header{Name: "d", Typeflag: tar.TypeBlock, Devminor: 1 << 20}), "too large"},
		{"terminal", tarOf(t, tar.Header{Name: "\x1b[2J", Typeflag: tar.TypeLink, Linkname: "nothing"}), `"\x1b[2J": hard link`},
		{"file over its own folder", tarOf(t, tar.Header{Name: "a", Uname: "1"}, tar.Header{Name: "a/b", Uname: "2"}), "a/b: /a is not a folder"},
	} {
		_, err := New(Spec{Init: program(t, elf.EM_X86_64, ""), Layers: []Layer{layerOf(c.tar)}})
		if err == nil || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: error %v does not say %q", c.name, err, c.want)
		}
	}
}

// What leads out of the image by links, leads to the same path in the image: nothing is ever unpacked on the host.
func TestLinksStayInside(t *testing.T) {
	outside := t.TempDir()
	write(t, outside+"/victim", "mine", 0o644)
	layer := tarOf(t,
		tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: outside},
		tar.Header{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../../.."},
		tar.Header{Name: "out/victim", Uname: "theirs"},
		tar.Header{Name: "up/top", Uname: "at the root"},
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "out/victim"},
		tar.Header{Name: "up/../../x/.wh.y"}) // refused before
	_, err := New(Spec{Init: program(t, elf.EM_X86_64, ""), Layers: []Layer{layerOf(layer)}})
	if err == nil || !strings.Contains(err.Error(), `has ".." in it`) {
		t.Errorf("error %v", err)
	}
	layer = tarOf(t,
		tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: outside},
		tar.Header{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../../.."},
		tar.Header{Name: "out/victim", Uname: "theirs"},
		tar.Header{Name: "up/top", Uname: "at the root"},
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "out/victim"})
	got := build(t, Spec{Init: program(t, elf.EM_X86_64, ""), Layers: []Layer{layerOf(layer)}})
	inside := strings.TrimPrefix(outside, "/") + "/victim"
	if got["top"].text != "at the root" || got[inside].NLink != 2 || got[inside].Ino != got["hard"].Ino {
		t.Errorf("top %q, %s %+v, hard %+v", got["top"].text, inside, got[inside].Info, got["hard"].Info)
	}
	if b, err := os.ReadFile(outside + "/victim"); err != nil || string(b) != "mine" {
		t.Errorf("the host's file is %q, %v", b, err)
	}
}

func TestLayersBounded(t *testing.T) {
	big := tarOf(t, tar.Header{Name: "zeros", Uname: strings.Repeat("\x00", 1<<20)})
	var small bytes.Buffer
	z := gzip.NewWriter(&small)
	_, err := z.Write(big)
	must(t, err)
	must(t, z.Close())
	open := func() (io.ReadCloser, error) { return Decompress(bytes.NewReader(small.Bytes())) }
	for _, c := range []struct {
		layers int
		bound  int64
		fits   bool
	}{{1, 1 << 20, false}, {1, 2 << 20, true}, {2, 2 << 20, false}} {
		s := Spec{Init: program(t, elf.EM_X86_64, ""), MaxBytes: c.bound}
		for range c.layers {
			s.Layers = append(s.Layers, open)
		}
		i, err := New(s)
		if (err == nil) != c.fits || err != nil && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%+v: %v", c, err)
		}
		if i != nil {
			must(t, i.Close())
		}
	}
}

// A layer is read to its end, behind the tar's: a digest is checked there.
func TestLayerReadToTheEnd(t *testing.T) {
	text := append(tarOf(t, tar.Header{Name: "a"}), make([]byte, 10240)...)
	wrong := errors.New("wrong digest")
	open := func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(text), iotest.ErrReader(wrong))), nil
	}
	if _, err := New(Spec{Init: program(t, elf.EM_X86_64, ""), Layers: []Layer{open}}); !errors.Is(err, wrong) {
		t.Errorf("error %v", err)
	}
}

func TestChoose(t *testing.T) {
	layer := tarOf(t, tar.Header{Name: "etc/app.toml", Uname: "from the image"}, tar.Header{Name: "opt/bin/app", Mode: 0o755, Uname: "#!/opt/bin/sh"},
		tar.Header{Name: "opt/bin/data"}, tar.Header{Name: "file"}, tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o700})
	sh := program(t, elf.EM_X86_64, "")
	s := Spec{Init: sh, Layers: []Layer{layerOf(layer)}, Config: []byte("not this"), Files: []File{{Path: "/opt/bin/sh", Source: sh, Mode: 0o755}}}
	s.Choose = func(c *Contents) (Choice, error) {
		text, err := c.ReadFile("/etc/app.toml")
		must(t, err)
		if _, err := c.ReadFile("/nowhere"); !errors.Is(err, ErrMissing) {
			t.Errorf("missing file: %v", err)
		}
		for _, l := range []struct{ file, path, dir, want string }{
			{"app", "/bin:/opt/bin", "/", "/opt/bin/app"}, {"app", "bin", "/opt", "/opt/bin/app"}, {"./bin/app", "", "/opt", "/opt/bin/app"},
			{"/any", "", "", "/any"}, {"data", "/opt/bin", "/", ""}, {"dir", "/", "/", ""}} {
			if got, err := c.LookPath(l.file, l.path, l.dir); got != l.want || (err == nil) != (l.want != "") {
				t.Errorf("%+v: %q, %v", l, got, err)
			}
		}
		return Choice{Config: text, Commands: []string{"/opt/bin/app"}, Folders: []string{"/dir", "/made/for/it"}}, nil
	}
	got := build(t, s)
	if got["etc/rouse.toml"].text != "from the image" || got["made/for/it"].Mode != 0o040755 || got["dir"].Mode != 0o040700 {
		t.Errorf("configuration %q, folders %o and %o", got["etc/rouse.toml"].text, got["made/for/it"].Mode, got["dir"].Mode)
	}
	s.Choose = func(*Contents) (Choice, error) { return Choice{Folders: []string{"/file"}}, nil }
	if _, err := New(s); err == nil || !strings.Contains(err.Error(), "/file: the image has it, and not as a folder") {
		t.Errorf("error %v", err)
	}
	s.Choose = func(*Contents) (Choice, error) { return Choice{Commands: []string{"/opt/bin/data"}}, nil }
	if _, err := New(s); err == nil || !strings.Contains(err.Error(), "not executable") {
		t.Errorf("error %v", err)
	}
}

func TestUnreadableFileNamed(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read every file")
	}
	dir := t.TempDir()
	write(t, dir+"/secret", "x", 0)
	_, err := New(Spec{Init: program(t, elf.EM_X86_64, ""), Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "/secret") {
		t.Errorf("error %v does not name the file", err)
	}
}

// Whatever the layers hold: a tree in which every entry's folder is a folder, or an error.
func FuzzLayers(f *testing.F) {
	f.Add([]byte("a\x00b/c\x00b/.wh.c\x00b/.wh..wh..opq\x00b"), []byte("b\x00b/../../x\x00.wh.b"))
	f.Add([]byte("d/\x00d/l4\x00d/.wh...\x00.wh."), []byte("link3\x00link3/x\x00.wh.d"))
	f.Fuzz(func(t *testing.T, low, high []byte) {
		b := &builder{image: &Image{tree: newTree()}}
		defer b.image.Close()
		for _, names := range [][]byte{low, high} {
			b.spec.Layers = append(b.spec.Layers, layerOf(fuzzTar(names)))
		}
		if b.addLayers() == nil {
			checkTree(t, b.image)
		}
	})
}

// checkTree: every path is clean and in a folder, and the image can be written and read again, the same.
func checkTree(t *testing.T, i *Image) {
	t.Helper()
	for _, p := range i.tree.paths() {
		if path.Clean(p) != p || !path.IsAbs(p) {
			t.Fatalf("path %q leads elsewhere", p)
		}
		if dir := i.tree.entries[path.Dir(p)]; dir == nil || !dir.isDir() {
			t.Fatalf("%q is in no folder", p)
		}
		if e := i.tree.entries[p]; e.isRegular() && e.section == nil && e.length() > 0 {
			t.Fatalf("%q has content from elsewhere", p)
		}
	}
	var once, twice bytes.Buffer
	if err := i.WriteTar(&once); err != nil {
		t.Fatal(err)
	}
	b := &builder{spec: Spec{Layers: []Layer{layerOf(once.Bytes())}}, image: &Image{tree: newTree()}}
	defer b.image.Close()
	if err := b.addLayers(); err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	if err := b.image.WriteTar(&twice); err != nil || !bytes.Equal(once.Bytes(), twice.Bytes()) {
		t.Fatalf("read and written again it is another image: %v", err)
	}
	for _, p := range i.tree.paths() {
		if path.Base(p) == cpio.Trailer || p == "/"+cpio.Trailer {
			return // refused, as TestRefused has it
		}
	}
	if err := i.writeRecords(cpio.Newc.Writer(io.Discard)); err != nil {
		t.Fatal(err)
	}
}

// Any bytes at all, plain or compressed.
func FuzzLayerBytes(f *testing.F) {
	good := tarOf(f, tar.Header{Name: "a/b", Uname: "text", PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}}, tar.Header{Name: "c", Typeflag: tar.TypeLink, Linkname: "a/b"},
		tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "a"}, tar.Header{Name: "d/.wh.b"}, tar.Header{Name: "e", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3})
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	_, _ = z.Write(good)
	z.Close()
	f.Add(good)
	f.Add(gz.Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		b := &builder{image: &Image{tree: newTree()}, spec: Spec{MaxBytes: 1 << 20}}
		defer b.image.Close()
		b.spec.Layers = []Layer{func() (io.ReadCloser, error) { return Decompress(bytes.NewReader(text)) }}
		if b.addLayers() == nil {
			checkTree(t, b.image)
		}
	})
}

// fuzzTar makes of each name, by its length, a file, a folder, a link to the name before, or a symbolic link to it.
func fuzzTar(names []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	before := "."
	for _, n := range strings.Split(string(names), "\x00") {
		if n == "" {
			continue
		}
		kind := []byte{tar.TypeReg, tar.TypeDir, tar.TypeLink, tar.TypeSymlink}[len(n)%4]
		if w.WriteHeader(&tar.Header{Name: n, Typeflag: kind, Linkname: before, Mode: 0o700}) != nil {
			break
		}
		before = n
	}
	w.Close()
	return b.Bytes()
}

// A folder's extended attributes travel into what can hold them, and are named where they are lost.
func TestXattrs(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir+"/f", "x", 0o644)
	if err := unix.Setxattr(file, "user.note", []byte("hi\x00there"), 0); err != nil {
		t.Skipf("%s: extended attributes: %v", dir, err)
	}
	i, err := New(Spec{Init: program(t, elf.EM_X86_64, ""), Dir: dir})
	must(t, err)
	defer i.Close()
	var b bytes.Buffer
	must(t, i.WriteTar(&b))
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		must(t, err)
		if h.Name == "f" {
			if got := h.PAXRecords["SCHILY.xattr.user.note"]; got != "hi\x00there" {
				t.Errorf("attribute %q", got)
			}
			break
		}
	}
	must(t, i.WriteCPIO(io.Discard, "none"))
	if len(i.Warnings) != 1 || !strings.Contains(i.Warnings[0], "/f: attribute user.note is lost") {
		t.Errorf("warnings %q", i.Warnings)
	}
}
