package source

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"rouse/rootfs/image"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tarOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		name, text, _ := strings.Cut(f, "=")
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := io.WriteString(w, text)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// made is an image of two layers: one file is replaced, one is taken away.
func made(t testing.TB, arch string, o ...tarball.LayerOption) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Entrypoint: []string{"/app", arch}, Env: []string{"A=b"}}})
	must(t, err)
	for _, text := range [][]byte{tarOf(t, "gone=1", "etc/app="+arch), tarOf(t, ".wh.gone", "app=run", "etc/app=new "+arch)} {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }, o...)
		must(t, err)
		img, err = mutate.AppendLayers(img, l)
		must(t, err)
	}
	return img
}

func layoutOf(t testing.TB, list ...mutate.IndexAddendum) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	_, err := layout.Write(dir, mutate.AppendManifests(empty.Index, list...))
	must(t, err)
	return dir
}

func named(img v1.Image, name string) mutate.IndexAddendum {
	return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Annotations: map[string]string{refName: name}}}
}

func forPlatform(t testing.TB, arch, variant string) mutate.IndexAddendum {
	return mutate.IndexAddendum{Add: made(t, arch), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch, Variant: variant}}}
}

// pack makes a tar of a folder.
func pack(t testing.TB, dir string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "archive.tar")
	f, err := os.Create(name)
	must(t, err)
	w := tar.NewWriter(f)
	must(t, w.AddFS(os.DirFS(dir)))
	must(t, errors.Join(w.Close(), f.Close()))
	return name
}

func compressed(t testing.TB, name, how string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	must(t, err)
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if how == "zstd" {
		w, err = zstd.NewWriter(&b)
		must(t, err)
	}
	_, err = w.Write(text)
	must(t, errors.Join(err, w.Close()))
	out := name + "." + how
	must(t, os.WriteFile(out, b.Bytes(), 0o600))
	return out
}

var amd64 = Options{Platform: "linux/amd64"}

// program is a static ELF executable as far as anyone looks.
func program(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	must(t, binary.Write(&b, binary.LittleEndian, h))
	name := filepath.Join(t.TempDir(), "init")
	must(t, os.WriteFile(name, b.Bytes(), 0o755))
	return name
}

// read opens an input and flattens it: a tar of what the layers make together.
func read(t testing.TB, text string, o Options) (*Image, []byte, error) {
	t.Helper()
	in, err := Parse(text)
	if err != nil {
		return nil, nil, err
	}
	i, err := Open(t.Context(), in, o)
	if err != nil {
		return nil, nil, err
	}
	defer i.Close()
	flat, err := image.New(image.Spec{Init: program(t), Layers: i.Layers})
	if err != nil {
		return i, nil, err
	}
	defer flat.Close()
	var b bytes.Buffer
	must(t, flat.WriteTar(&b))
	return i, b.Bytes(), nil
}

// files are the flattened files, without what rouse adds.
func files(t testing.TB, flat []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(flat)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		must(t, err)
		if h.Typeflag == tar.TypeReg && h.Name != "init" {
			text, err := io.ReadAll(r)
			must(t, err)
			out[h.Name] = string(text)
		}
	}
}

func checkMade(t *testing.T, text string, o Options, arch string) {
	t.Helper()
	i, flat, err := read(t, text, o)
	if err != nil {
		t.Errorf("%s: %v", text, err)
		return
	}
	got := files(t, flat)
	if _, gone := got["gone"]; gone || got["app"] != "run" || got["etc/app"] != "new "+arch {
		t.Errorf("%s: %v", text, got)
	}
	if len(i.Config.Entrypoint) != 2 || i.Config.Entrypoint[1] != arch || i.Platform != "linux/"+arch || !strings.HasPrefix(i.Digest, "sha256:") {
		t.Errorf("%s: configuration %+v, platform %s, digest %s", text, i.Config, i.Platform, i.Digest)
	}
}

// All forms of one image are one image.
func TestForms(t *testing.T) {
	img := made(t, "amd64")
	dir := layoutOf(t, named(img, "v1"))
	archive := pack(t, dir)
	docker := filepath.Join(t.TempDir(), "docker.tar")
	tag, err := name.NewTag("app:v1")
	must(t, err)
	must(t, tarball.WriteToFile(docker, tag, img))
	plainLayers := layoutOf(t, named(made(t, "amd64", tarball.WithCompression(compression.None), tarball.WithMediaType(types.OCIUncompressedLayer)), "v1"))
	zstdLayers := layoutOf(t, named(made(t, "amd64", tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd)), "v1"))
	for _, text := range []string{dir, "oci:" + dir, "oci:" + dir + ":v1", archive, "oci-archive:" + archive, "oci-archive:" + archive + ":v1",
		compressed(t, archive, "gzip"), compressed(t, archive, "zstd"), docker, "docker-archive:" + docker, "docker-archive:" + docker + ":v1",
		compressed(t, docker, "gzip"), plainLayers, zstdLayers} {
		checkMade(t, text, amd64, "amd64")
	}
	digest, err := img.Digest()
	must(t, err)
	checkMade(t, "oci:"+dir+"@"+digest.String(), amd64, "amd64")
}

// docker save before 25: folders of any name, the second layer a link to the first where they are equal.
func TestOldDockerSave(t *testing.T) {
	layer := tarOf(t, "app=run")
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	must(t, err)
	diff, err := l.DiffID()
	must(t, err)
	config, err := json.Marshal(v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diff, diff}}})
	must(t, err)
	list, err := json.Marshal([]dockerImage{{Config: "config.json", Layers: []string{"one/layer.tar", "two/layer.tar"}}})
	must(t, err)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct{ name, link, text string }{{"config.json", "", string(config)}, {"manifest.json", "", string(list)}, {"one/layer.tar", "", string(layer)}, {"two/layer.tar", "../one/layer.tar", ""}} {
		h := &tar.Header{Name: f.name, Size: int64(len(f.text)), Typeflag: tar.TypeReg, Mode: 0o644}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		must(t, w.WriteHeader(h))
		_, err := io.WriteString(w, f.text)
		must(t, err)
	}
	must(t, w.Close())
	file := filepath.Join(t.TempDir(), "old.tar")
	must(t, os.WriteFile(file, b.Bytes(), 0o600))
	_, flat, err := read(t, file, amd64)
	must(t, err)
	if files(t, flat)["app"] != "run" {
		t.Error(files(t, flat))
	}
}

func TestPlatforms(t *testing.T) {
	attested := forPlatform(t, "amd64", "")
	attested.Annotations = map[string]string{attestation: "attestation-manifest"}
	attested.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	index := mutate.AppendManifests(empty.Index, attested, forPlatform(t, "arm64", "v8"), forPlatform(t, "amd64", ""))
	nested := layoutOf(t, mutate.IndexAddendum{Add: index})
	flat := layoutOf(t, forPlatform(t, "arm64", "v8"), forPlatform(t, "amd64", ""))
	for _, dir := range []string{nested, flat} {
		checkMade(t, dir, amd64, "amd64")
		checkMade(t, dir, Options{Platform: "linux/arm64"}, "arm64")
		checkMade(t, dir, Options{Platform: "linux/arm64/v8"}, "arm64")
		if _, _, err := read(t, dir, Options{Platform: "linux/riscv64"}); err == nil || !strings.Contains(err.Error(), "there are: linux/arm64/v8, linux/amd64") {
			t.Errorf("error %v", err)
		}
	}
}

// One bit wrong anywhere in an archive: it is refused, or the image is the same.
func TestEveryBit(t *testing.T) {
	dir := layoutOf(t, named(made(t, "amd64"), "v1"))
	docker := filepath.Join(t.TempDir(), "docker.tar")
	tag, err := name.NewTag("app:v1")
	must(t, err)
	must(t, tarball.WriteToFile(docker, tag, made(t, "amd64", tarball.WithCompression(compression.None))))
	random := rand.New(rand.NewPCG(1, 2))
	for _, file := range []string{pack(t, dir), docker} {
		_, want, err := read(t, file, amd64)
		must(t, err)
		good, err := os.ReadFile(file)
		must(t, err)
		refused := 0
		for range 400 {
			bad := bytes.Clone(good)
			bad[random.IntN(len(bad))] ^= 1 << random.IntN(8)
			must(t, os.WriteFile(file, bad, 0o600))
			i, got, err := read(t, file, amd64)
			if err != nil {
				refused++
				continue
			}
			if i.Config.Entrypoint == nil && !bytes.Equal(got, want) { // a tar of its own, then
				continue
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%s: another image is accepted: %v", filepath.Base(file), files(t, got))
			}
		}
		if refused < 40 {
			t.Errorf("only %d of 400 were refused: does this test change anything?", refused)
		}
		must(t, os.WriteFile(file, good, 0o600))
	}
}

// rewrite changes one document of a layout and everything above it that has its digest.
func rewrite(t testing.TB, img v1.Image, change func(*v1.Manifest)) string {
	t.Helper()
	dir := layoutOf(t, named(img, "v1"))
	m, err := img.Manifest()
	must(t, err)
	m = m.DeepCopy()
	change(m)
	text, err := json.Marshal(m)
	must(t, err)
	digest, size, err := v1.SHA256(bytes.NewReader(text))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, blobPath(digest)), text, 0o600))
	index := v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{{MediaType: types.OCIManifestSchema1, Digest: digest, Size: size}}}
	text, err = json.Marshal(index)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, indexFile), text, 0o600))
	return dir
}

func TestRefused(t *testing.T) {
	img := made(t, "amd64")
	other := static.NewLayer([]byte("chart"), "application/x-chart")
	artifact, err := mutate.AppendLayers(mutate.ConfigMediaType(empty.Image, "application/vnd.cncf.helm.config.v1+json"), other)
	must(t, err)
	for name, c := range map[string]struct{ dir, want string }{
		"artifact":    {layoutOf(t, named(artifact, "v1")), "not a container image"},
		"two":         {layoutOf(t, named(img, "v1"), named(made(t, "arm64"), "v2")), "it holds 2 images (v1, v2); name one: oci:"},
		"other":       {layoutOf(t, named(made(t, "s390x"), "v1")), "it is for linux/s390x, and the guest is linux/amd64"},
		"none":        {layoutOf(t), "no image is in it"},
		"encrypted":   {rewrite(t, img, func(m *v1.Manifest) { m.Layers[0].MediaType += "+encrypted" }), "decrypt the image first"},
		"no tar":      {rewrite(t, img, func(m *v1.Manifest) { m.Layers[0].MediaType = "application/wasm" }), "not a tar"},
		"fewer":       {rewrite(t, img, func(m *v1.Manifest) { m.Layers = m.Layers[1:] }), "it tells of 2 layers, and there are 1"},
		"swapped":     {rewrite(t, img, func(m *v1.Manifest) { m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0] }), ErrDigest.Error()},
		"sha512":      {rewrite(t, img, func(m *v1.Manifest) { m.Config.Digest.Algorithm = "sha512" }), "sha512"},
		"huge config": {rewrite(t, img, func(m *v1.Manifest) { m.Config.Size = 1 << 40 }), "more than 4194304"},
		"size below":  {rewrite(t, img, func(m *v1.Manifest) { m.Config.Size = -1 }), "-1 bytes"},
		"short layer": {rewrite(t, img, func(m *v1.Manifest) { m.Layers[0].Size-- }), "more bytes than expected"},
		"long layer":  {rewrite(t, img, func(m *v1.Manifest) { m.Layers[0].Size++ }), ErrDigest.Error()},
		"missing":     {rewrite(t, img, func(m *v1.Manifest) { m.Layers[0].Digest.Hex = strings.Repeat("0", 64) }), "is the layout whole?"},
	} {
		if _, _, err := read(t, c.dir, amd64); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not say %q", name, err, c.want)
		}
	}
	if _, _, err := read(t, "oci:"+layoutOf(t, named(img, "v1"))+":v9", amd64); err == nil || !strings.Contains(err.Error(), `no image "v9" in it; there are: v1`) {
		t.Errorf("error %v", err)
	}
	if _, _, err := read(t, layoutOf(t, named(img, "v1")), Options{Platform: "amd64"}); err == nil || !strings.Contains(err.Error(), "linux/amd64") {
		t.Errorf("error %v", err)
	}
}

// An index that leads to itself ends.
func TestIndexInIndex(t *testing.T) {
	var index v1.ImageIndex = mutate.AppendManifests(empty.Index, forPlatform(t, "amd64", ""))
	for range 8 {
		index = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index})
	}
	if _, _, err := read(t, layoutOf(t, mutate.IndexAddendum{Add: index}), amd64); err == nil || !strings.Contains(err.Error(), "nest too deep") {
		t.Errorf("error %v", err)
	}
}

func TestParse(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"prog": "\x7fELF....", "root.tar": string(tarOf(t, "etc/x=1")), "note": "hello, world", "with:colon": "\x7fELF...."} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	root := filepath.Join(dir, "root")
	must(t, os.Mkdir(root, 0o755))
	oci := layoutOf(t, named(made(t, "amd64"), "v1"))
	t.Chdir(dir)
	for text, want := range map[string]Input{
		"prog": {Kind: Program, Path: "prog"}, dir + "/prog": {Kind: Program, Path: dir + "/prog"}, "with:colon": {Kind: Program, Path: "with:colon"},
		"root": {Kind: Dir, Path: "root"}, "root.tar": {Kind: Tar, Path: "root.tar"}, oci: {Kind: OCI, Path: oci},
		"dir:" + oci: {Kind: Dir, Path: oci}, "oci:" + oci + ":v1": {Kind: OCI, Path: oci, Name: "v1"}, "oci:" + oci + "@sha256:ab": {Kind: OCI, Path: oci, Name: "sha256:ab"},
		"oci:with:colon": {Kind: OCI, Path: "with:colon"}, "oci:with:colon:v1": {Kind: OCI, Path: "with:colon", Name: "v1"},
		"app:v1": {Kind: Registry, Path: "app:v1"}, "registry.example/app": {Kind: Registry, Path: "registry.example/app"},
		"docker://app": {Kind: Registry, Path: "app"}, "registry:app": {Kind: Registry, Path: "app"}, "bin:prog": {Kind: Program, Path: "prog"}, "tar:root.tar": {Kind: Tar, Path: "root.tar"},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
		if got.Container() != (want.Kind == OCI || want.Kind == Registry) {
			t.Errorf("%s: container %v", text, got.Container())
		}
	}
	for text, want := range map[string]string{"app": "an image of a registry is docker://app", "": "no such file", "./app:v1": "no such file", "/nowhere/app": "no such file",
		"oci:": "nothing behind it", "dir:nowhere": "no such file", "note": "neither a program (ELF) nor an archive"} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not say %q", text, err, want)
		}
	}
}

// Cancelling ends a download that hangs.
func TestCancel(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	hanging := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		select {
		case <-hanging:
		case <-time.After(time.Minute):
		}
	}))
	defer s.Close()
	defer close(hanging)
	_, err := Open(ctx, Input{Kind: Registry, Path: strings.TrimPrefix(s.URL, "http://") + "/app:v1"}, amd64)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A small archive that unpacks to a large one is refused, and leaves no file.
func TestArchiveBounded(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	big := filepath.Join(t.TempDir(), "big.tar")
	must(t, os.WriteFile(big, tarOf(t, "oci-layout={}", "index.json={}", "zeros="+strings.Repeat("\x00", 1<<20)), 0o600))
	o := amd64
	o.MaxBytes = 1 << 20
	if _, err := Open(t.Context(), Input{Kind: OCIArchive, Path: compressed(t, big, "gzip")}, o); !errors.Is(err, image.ErrTooLarge) {
		t.Errorf("error %v", err)
	}
	if left, err := fs.Glob(os.DirFS(os.TempDir()), "*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// Any bytes as an archive: an error or an image, and never another file of this machine.
func FuzzArchive(f *testing.F) {
	dir := layoutOf(f, named(made(f, "amd64"), "v1"))
	text, err := os.ReadFile(pack(f, dir))
	must(f, err)
	f.Add(text, false)
	f.Add(tarOf(f, `manifest.json=[{"Config":"c","Layers":["l"]}]`, `c={"rootfs":{"diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}`, "l="), true)
	file := filepath.Join(f.TempDir(), "fuzz.tar")
	f.Fuzz(func(t *testing.T, text []byte, docker bool) {
		must(t, os.WriteFile(file, text, 0o600))
		in := Input{Kind: OCIArchive, Path: file}
		if docker {
			in.Kind = DockerArchive
		}
		i, err := Open(t.Context(), in, Options{Platform: "linux/amd64", MaxBytes: 1 << 20})
		if err != nil {
			return
		}
		defer i.Close()
		for _, open := range i.Layers {
			if r, err := open(); err == nil {
				_, _ = io.Copy(io.Discard, r)
				r.Close()
			}
		}
	})
}
