package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// tarOf makes a layer of headers; Xattrs and content ride in PAXRecords and in text.
func tarOf(t *testing.T, entries ...tar.Header) []byte {
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
		tar.Header{Name: "../../../escape", Uname: "x"})
	high := tarOf(t,
		tar.Header{Name: "gone/.wh.one"},
		tar.Header{Name: "opaque/new", Uname: "new"}, tar.Header{Name: "opaque/.wh..wh..opq"}, tar.Header{Name: "opaque/later", Uname: "later"},
		tar.Header{Name: "lib/a", Uname: "high a"}, // through the lower layer's link
		tar.Header{Name: "usr/lib/c", Typeflag: tar.TypeLink, Linkname: "usr/lib/b"},
		tar.Header{Name: ".wh.nothing"})
	got := build(t, Spec{Init: program(t, elf.EM_X86_64, ""), Layers: []Layer{layerOf(low), layerOf(high)}})
	for name, text := range map[string]string{"usr/lib/a": "high a", "gone/two": "2", "opaque/new": "new", "opaque/later": "later", "escape": "x",
		"etc/machine-id": "", "lib": "usr/lib"} {
		if e, ok := got[name]; !ok || e.text != text {
			t.Errorf("%s: there %v, %q; want %q", name, ok, e.text, text)
		}
	}
	for _, name := range []string{"gone/one", "gone/.wh.one", "opaque/old", "opaque/sub", "opaque/sub/older", "opaque/.wh..wh..opq", ".dockerenv"} {
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
		{"file over its own folder", tarOf(t, tar.Header{Name: "a", Uname: "1"}, tar.Header{Name: "a/b", Uname: "2"}), "a/b: /a is not a folder"},
	} {
		_, err := New(Spec{Init: program(t, elf.EM_X86_64, ""), Layers: []Layer{layerOf(c.tar)}})
		if err == nil || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: error %v does not say %q", c.name, err, c.want)
		}
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
	f.Fuzz(func(t *testing.T, low, high []byte) {
		b := &builder{image: &Image{tree: newTree()}}
		defer b.image.Close()
		for _, names := range [][]byte{low, high} {
			b.spec.Layers = append(b.spec.Layers, layerOf(fuzzTar(names)))
		}
		if b.addLayers() != nil {
			return
		}
		for _, p := range b.image.tree.paths() {
			if strings.Contains(p, "/..") && strings.Contains(p+"/", "/../") {
				t.Fatalf("path %q leads out", p)
			}
			if dir := b.image.tree.entries[p[:max(1, strings.LastIndexByte(p, '/'))]]; dir == nil || !dir.isDir() {
				t.Fatalf("%q is in no folder", p)
			}
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
