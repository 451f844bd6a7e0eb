package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"rouse/vmm"
)

// Limits on what a registry may make us take, in bytes.
const (
	maxConfig = 8 << 20
	maxBlob   = 1 << 30 // of a chunk, unpacked
)

// Pull makes a snapshot folder of what Push sent, complete or not at all. Blobs are kept in the cache folder,
// where the next pull finds them; it may be removed at any time.
func Pull(ctx context.Context, ref, output, cache string, o Options) (vmm.Manifest, error) {
	o.fill()
	from, err := o.reference(ref)
	if err != nil {
		return vmm.Manifest{}, err
	}
	p := &puller{o: o, repo: from.Context(), cache: cache}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return vmm.Manifest{}, err
	}
	m, err := p.pull(ctx, from, output)
	if err != nil {
		return m, fmt.Errorf("pull %s: %w", from, err)
	}
	return m, nil
}

type puller struct {
	o           Options
	repo        name.Repository
	cache       string
	done, total atomic.Int64
	locks       sync.Map // digest to *sync.Mutex: equal chunks are fetched once
}

func (p *puller) pull(ctx context.Context, from name.Reference, output string) (vmm.Manifest, error) {
	image, err := p.image(ctx, from)
	if err != nil {
		return vmm.Manifest{}, err
	}
	text, err := p.config(ctx, image)
	if err != nil {
		return vmm.Manifest{}, err
	}
	return vmm.Assemble(ctx, text, output, func(dir string, m vmm.Manifest) error {
		return p.fill(ctx, dir, m, image.Layers)
	})
}

// image fetches the image manifest. That it has the digest which a reference names is checked by remote.
func (p *puller) image(ctx context.Context, from name.Reference) (imageManifest, error) {
	var image imageManifest
	d, err := remote.Get(from, p.o.remote(ctx)...)
	if err != nil {
		return image, err
	}
	if d.MediaType != types.OCIManifestSchema1 || json.Unmarshal(d.Manifest, &image) != nil || image.Config.MediaType != ConfigType {
		return image, errForeign
	}
	return image, nil
}

func (p *puller) config(ctx context.Context, image imageManifest) ([]byte, error) {
	if image.Config.Size > maxConfig {
		return nil, fmt.Errorf("manifest of %d bytes", image.Config.Size)
	}
	path, err := p.fetch(ctx, image.Config)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// fill fetches all layers, several side by side, and writes them to their places.
func (p *puller) fill(ctx context.Context, dir string, m vmm.Manifest, layers []v1.Descriptor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, l := range layers {
		p.total.Add(l.Size)
	}
	queue := make(chan v1.Descriptor)
	var wg sync.WaitGroup
	for range p.o.Jobs {
		wg.Go(func() {
			for l := range queue {
				if err := p.layer(ctx, dir, m, l); err != nil {
					cancel(err)
				}
			}
		})
	}
feed:
	for _, l := range layers {
		select {
		case queue <- l:
		case <-ctx.Done():
			break feed
		}
	}
	close(queue)
	wg.Wait()
	return context.Cause(ctx)
}

func (p *puller) layer(ctx context.Context, dir string, m vmm.Manifest, l v1.Descriptor) error {
	name := l.Annotations[fileKey]
	file, ok := m.Files[name]
	offset, err := strconv.ParseInt(l.Annotations[offsetKey], 10, 64)
	if !ok || err != nil || offset < 0 || offset >= file.Size || l.MediaType != ChunkType {
		return fmt.Errorf("layer %s: part of %q from %q on: the manifest has no such place", l.Digest, name, l.Annotations[offsetKey])
	}
	blob, err := p.fetch(ctx, l)
	if err != nil {
		return fmt.Errorf("layer %s: %w", l.Digest, err)
	}
	if err := unpack(blob, filepath.Join(dir, name), offset, file.Size-offset); err != nil {
		return fmt.Errorf("layer %s: %w", l.Digest, err)
	}
	p.o.Progress(p.done.Add(l.Size), p.total.Load())
	return nil
}

// fetch gives the cache's file of a blob, and fetches it if it is not there. A blob comes under its name only
// when its digest was right.
func (p *puller) fetch(ctx context.Context, d v1.Descriptor) (string, error) {
	lock, _ := p.locks.LoadOrStore(d.Digest, new(sync.Mutex))
	lock.(*sync.Mutex).Lock()
	defer lock.(*sync.Mutex).Unlock()
	path := filepath.Join(p.cache, d.Digest.Algorithm+"-"+d.Digest.Hex)
	if known(path, d) {
		return path, nil
	}
	return path, p.download(ctx, d, path)
}

func (p *puller) download(ctx context.Context, d v1.Descriptor, path string) error {
	layer, err := remote.Layer(p.repo.Digest(d.Digest.String()), p.o.remote(ctx)...)
	if err != nil {
		return err
	}
	r, err := layer.Compressed() // fails at its end if the digest is wrong
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.CreateTemp(p.cache, ".blob-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already if all went well
	n, err := io.Copy(f, io.LimitReader(r, d.Size+1))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && n != d.Size {
		err = fmt.Errorf("%d bytes, its descriptor says %d", n, d.Size)
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// known says that the cache has a blob, whole and as it should be. Reading it costs less than what it saves.
func known(path string, d v1.Descriptor) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	got, size, err := v1.SHA256(f)
	return err == nil && got == d.Digest && size == d.Size
}

func unpack(blob, path string, offset, room int64) error {
	in, err := os.Open(blob)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlob))
	if err != nil {
		return err
	}
	defer z.Close()
	out, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	counted := &counter{r: io.LimitReader(z, room+1)}
	if err := vmm.WriteSparse(out, offset, counted); err != nil {
		return err
	}
	if counted.n > room {
		return fmt.Errorf("it goes beyond the end of %s", filepath.Base(path))
	}
	return nil
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
