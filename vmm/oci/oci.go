// Package oci carries snapshots through container registries, as OCI artifacts.
//
// A snapshot becomes one image manifest of artifact type ArtifactType: its config blob is the snapshot's
// manifest.json, its layers are the files, cut into chunks of a fixed size at fixed places and each
// compressed. Memory does not move between snapshots as text in a file does, so fixed places are enough for
// chunks of two snapshots to be equal; equal chunks are equal blobs, which a registry keeps once, and which
// neither push nor pull sends again. Chunks of nothing but zeros are no layers.
//
// Whatever ends a push or pull, the next one goes on: a registry keeps the blobs that it has, a pull those in
// its cache folder. Each blob is checked against its digest as it comes, each file as a whole before the
// snapshot has its name.
package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"rouse/vmm"
)

// Media types.
const (
	ArtifactType = "application/vnd.rouse.snapshot.v1"
	ConfigType   = "application/vnd.rouse.snapshot.manifest.v2+json"
	ChunkType    = "application/vnd.rouse.snapshot.chunk.v1+zstd"
)

// Annotations of a layer: the file that it is a part of, and from where on, in bytes.
const (
	fileKey   = "vnd.rouse.file"
	offsetKey = "vnd.rouse.offset"
)

// Registries take manifests up to 4 MiB (distribution-spec, "Pushing Manifests"); a layer needs some 350 bytes.
const (
	minChunk  = 1 << 20
	maxLayers = 8000
)

// Options are shared by Push and Pull.
type Options struct {
	Keychain authn.Keychain // authn.DefaultKeychain, the user's docker configuration, if nil
	Insecure bool           // plain HTTP, for a registry in a network of one's own; loopback never needs it
	Jobs     int            // transfers side by side; 4 if zero
	// Progress is told of what is done and of what there is in all, in bytes; from several goroutines.
	Progress func(done, total int64)

	chunk int64 // the least size of chunks in bytes; minChunk if zero
}

func (o *Options) fill() {
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	if o.chunk == 0 {
		o.chunk = minChunk
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
}

func (o Options) reference(ref string) (name.Reference, error) {
	var opts []name.Option
	if o.Insecure {
		opts = append(opts, name.Insecure)
	}
	return name.ParseReference(ref, opts...)
}

func (o Options) remote(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(o.Keychain), remote.WithJobs(o.Jobs)}
}

// chunkSize grows with the snapshot, so that the manifest does not grow beyond what registries take.
func chunkSize(total, size int64) int64 {
	for total/size > maxLayers {
		size *= 2
	}
	return size
}

// chunk is a part of a file, compressed. Only its description is kept; the bytes are made again when they are
// sent, as a registry often has them.
type chunk struct {
	path   string
	offset int64
	length int64
	desc   v1.Descriptor
}

// snapshot is a v1.Image by way of partial.CompressedImageCore.
type snapshot struct {
	config   []byte
	manifest []byte
	chunks   map[v1.Hash]chunk
}

func (s *snapshot) RawConfigFile() ([]byte, error)      { return s.config, nil }
func (s *snapshot) RawManifest() ([]byte, error)        { return s.manifest, nil }
func (s *snapshot) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (s *snapshot) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	c, ok := s.chunks[h]
	if !ok {
		return nil, fmt.Errorf("no layer %s", h)
	}
	return c, nil
}

func (c chunk) Digest() (v1.Hash, error)            { return c.desc.Digest, nil }
func (c chunk) Size() (int64, error)                { return c.desc.Size, nil }
func (c chunk) MediaType() (types.MediaType, error) { return c.desc.MediaType, nil }
func (c chunk) Compressed() (io.ReadCloser, error) {
	data, err := compressed(c.path, c.offset, c.length)
	return io.NopCloser(bytes.NewReader(data)), err
}

// compressed gives the bytes of a chunk's blob, the same ones each time; nil if the chunk is all zeros.
func compressed(path string, offset, length int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, length)
	if _, err := f.ReadAt(data, offset); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(bytes.TrimLeft(data, "\x00")) == 0 {
		return nil, nil
	}
	// One goroutine: the same input gives the same bytes.
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return w.EncodeAll(data, nil), nil
}

// Push sends a snapshot folder to a registry and returns the reference by digest.
func Push(ctx context.Context, dir, ref string, o Options) (string, error) {
	o.fill()
	to, err := o.reference(ref)
	if err != nil {
		return "", err
	}
	m, err := vmm.ReadManifest(dir)
	if err != nil {
		return "", err
	}
	if err := m.Verify(ctx, dir); err != nil {
		return "", err
	}
	s, err := pack(ctx, dir, m, o.chunk)
	if err != nil {
		return "", err
	}
	img, err := partial.CompressedToImage(s)
	if err != nil {
		return "", err
	}
	updates, watched := make(chan v1.Update, 16), make(chan struct{})
	go func() {
		defer close(watched)
		for u := range updates { // closed by remote.Write
			o.Progress(u.Complete, u.Total)
		}
	}()
	err = remote.Write(to, img, append(o.remote(ctx), remote.WithProgress(updates))...)
	<-watched
	if err != nil {
		return "", fmt.Errorf("push %s: %w", to, err)
	}
	digest, err := img.Digest()
	return to.Context().Digest(digest.String()).String(), err
}

// pack cuts a snapshot into layers and writes the image manifest.
func pack(ctx context.Context, dir string, m vmm.Manifest, least int64) (*snapshot, error) {
	config, err := os.ReadFile(filepath.Join(dir, vmm.ManifestFile))
	if err != nil {
		return nil, err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return nil, err
	}
	s := &snapshot{config: config, chunks: map[v1.Hash]chunk{}}
	image := imageManifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: ArtifactType,
		Config: v1.Descriptor{MediaType: ConfigType, Digest: digest, Size: size}, Layers: []v1.Descriptor{}}
	chunks := cut(dir, m, least)
	if err := describeAll(ctx, chunks); err != nil {
		return nil, err
	}
	for _, c := range chunks {
		if c.desc.Size > 0 { // else it is all zeros
			image.Layers = append(image.Layers, c.desc)
			s.chunks[c.desc.Digest] = c
		}
	}
	s.manifest, err = json.Marshal(image)
	return s, err
}

// imageManifest is v1.Manifest with the field that says what an artifact is (image-spec 1.1, manifest.md).
type imageManifest struct {
	SchemaVersion int64             `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        v1.Descriptor     `json:"config"`
	Layers        []v1.Descriptor   `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// cut gives the chunks in a fixed order.
func cut(dir string, m vmm.Manifest, least int64) []chunk {
	var total int64
	for _, f := range m.Files {
		total += f.Size
	}
	size := chunkSize(total, least)
	var list []chunk
	for _, name := range m.Names() {
		for at := int64(0); at < m.Files[name].Size; at += size {
			list = append(list, chunk{path: filepath.Join(dir, name), offset: at, length: min(size, m.Files[name].Size-at)})
		}
	}
	return list
}

// describeAll compresses on all processors; the order of the chunks stays.
func describeAll(ctx context.Context, chunks []chunk) error {
	var next atomic.Int64
	errs := make([]error, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1) - 1)
				if i >= len(chunks) {
					return
				}
				if errs[w] = ctx.Err(); errs[w] == nil {
					errs[w] = chunks[i].describe()
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// describe fills in the layer's descriptor; that of a chunk that is all zeros stays empty.
func (c *chunk) describe() error {
	data, err := compressed(c.path, c.offset, c.length)
	if err != nil || data == nil {
		return err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(data))
	c.desc = v1.Descriptor{MediaType: ChunkType, Digest: digest, Size: size, Annotations: map[string]string{
		fileKey: filepath.Base(c.path), offsetKey: strconv.FormatInt(c.offset, 10)}}
	return err
}

// errForeign is what is not a snapshot.
var errForeign = errors.New("no snapshot: it was not pushed by rouse")
