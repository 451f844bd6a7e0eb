//go:build root

package source

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// hard is what is easy to get wrong in layers. Uname carries content.
var hard = [][]tar.Header{
	{{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "usr/lib/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 3, Gid: 4},
		{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "usr/lib", Mode: 0o777}, {Name: "usr/lib/a", Uname: "a", Mode: 0o4755, Uid: 5, Gid: 6},
		{Name: "b", Typeflag: tar.TypeLink, Linkname: "usr/lib/a"}, {Name: "gone/deep/f", Uname: "1"}, {Name: "opaque/old", Uname: "2"}, {Name: "opaque/sub/older", Uname: "3"},
		{Name: "file", Uname: "4"}, {Name: "folder/x", Uname: "5"}, {Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		{Name: "capable", Uname: "6", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}}},
	{{Name: ".wh.gone"}, {Name: "opaque/", Typeflag: tar.TypeDir, Mode: 0o711}, {Name: "opaque/.wh..wh..opq"}, {Name: "opaque/new", Uname: "7"}, {Name: "lib/a", Uname: "through the link"},
		{Name: ".wh.file"}, {Name: "file/", Typeflag: tar.TypeDir, Mode: 0o700}, {Name: "file/in", Uname: "8"}, {Name: "folder", Uname: "now a file"}, {Name: "c", Typeflag: tar.TypeLink, Linkname: "b"},
		{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600}},
	{{Name: "usr/lib/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 9, Gid: 9}, {Name: "gone/again", Uname: "9"}, {Name: "usr/lib/.wh.a"}, {Name: "opaque/.wh.new"}, {Name: ".wh.nothing"}},
}

func hardLayers(t *testing.T) []v1.Layer {
	t.Helper()
	var list []v1.Layer
	for _, headers := range hard {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			text := h.Uname
			h.Uname, h.Size = "", int64(len(text))
			if h.Mode == 0 {
				h.Mode = 0o644
			}
			must(t, w.WriteHeader(&h))
			_, err := io.WriteString(w, text)
			must(t, err)
		}
		must(t, w.Close())
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
		must(t, err)
		list = append(list, l)
	}
	return list
}

// umoci unpacks on a real file system as root, we into a tree as anybody: both must come to the same.
func TestAgainstUmoci(t *testing.T) {
	umoci, err := exec.LookPath("umoci")
	if err != nil {
		t.Skip("umoci is missing: install Debian's package umoci to compare with it")
	}
	img, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	must(t, err)
	img, err = mutate.AppendLayers(img, hardLayers(t)...)
	must(t, err)
	dir := layoutOf(t, named(img, "v1"))
	bundle := filepath.Join(t.TempDir(), "bundle")
	if text, err := exec.Command(umoci, "unpack", "--image", dir+":v1", bundle).CombinedOutput(); err != nil {
		t.Fatalf("umoci: %v\n%s", err, text)
	}
	want := unpacked(t, filepath.Join(bundle, "rootfs"))
	_, flat, err := read(t, dir, amd64)
	must(t, err)
	got := described(t, flat)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: %q, umoci has %q", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok && !strings.Contains(" init dev etc proc root run sbin sys tmp var ", " "+strings.Split(name, "/")[0]+" ") {
			t.Errorf("%s: umoci does not have it", name)
		}
	}
}

// unpacked describes the files below a folder: mode, owner, links, device, content, capability.
func unpacked(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		link, _ := os.Readlink(p)
		var text []byte
		if info.Mode().IsRegular() {
			if text, err = os.ReadFile(p); err != nil {
				return err
			}
		}
		attr := make([]byte, 64)
		n, _ := unix.Lgetxattr(p, "security.capability", attr)
		out[strings.TrimPrefix(p, root+"/")] = describe(st.Mode&0o7777, st.Uid, st.Gid, unix.Major(st.Rdev), unix.Minor(st.Rdev), info.Mode().Type(), link, text, attr[:max(n, 0)])
		return nil
	}))
	return out
}

func describe(mode, uid, gid, major, minor uint32, kind fs.FileMode, link string, text, attr []byte) string {
	return fmt.Sprintf("%v %o %d:%d %d,%d %q %x %x", kind, mode, uid, gid, major, minor, link, sha256.Sum256(text), attr)
}

// described does the same of a tar; a hard link is what it leads to.
func described(t *testing.T, flat []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(flat)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		must(t, err)
		name := strings.TrimSuffix(h.Name, "/")
		if h.Typeflag == tar.TypeLink {
			out[name] = out[h.Linkname]
			continue
		}
		text, err := io.ReadAll(r)
		must(t, err)
		out[name] = describe(uint32(h.Mode), uint32(h.Uid), uint32(h.Gid), uint32(h.Devmajor), uint32(h.Devminor), h.FileInfo().Mode().Type(), h.Linkname, text,
			[]byte(h.PAXRecords["SCHILY.xattr.security.capability"]))
	}
}
