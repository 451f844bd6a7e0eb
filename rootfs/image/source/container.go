package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rouse/rootfs/image"
)

// Options say how [Open] looks.
type Options struct {
	Platform  string         // which image of several, as OS/ARCHITECTURE[/VARIANT]; needed
	Keychain  authn.Keychain // credentials for registries; nil: the user's, of docker login and podman login
	PlainHTTP bool           // speak HTTP with the registry; one on this machine is spoken to so anyway
	MaxBytes  int64          // of an archive that has to be unpacked; 0 is image.DefaultMaxBytes
}

// Image is a container image, found and checked but for its layers, which are checked as they are read.
type Image struct {
	Config   v1.Config // how it is to be run
	Platform string    // what it says it is for
	Digest   string    // of its manifest; of its configuration in a docker-archive
	Layers   []image.Layer

	store io.Closer
}

// Close ends the use of layers.
func (i *Image) Close() error {
	if i.store == nil {
		return nil
	}
	return i.store.Close()
}

// store gives a blob's bytes. They are not believed.
type store interface {
	open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
	Close() error
}

// Files of an OCI image layout, and docker's own list.
const (
	layoutFile     = "oci-layout"
	indexFile      = "index.json"
	dockerManifest = "manifest.json"
)

// maxDocument bounds manifests and configurations: what the OCI distribution-spec asks registries to take of a manifest, 4 MiB.
const maxDocument = 4 << 20

func blobPath(h v1.Hash) string { return filepath.Join("blobs", h.Algorithm, h.Hex) }

// Open finds the image that in names. ctx bounds the reading of layers as well.
func Open(ctx context.Context, in Input, o Options) (*Image, error) {
	want, err := v1.ParsePlatform(o.Platform)
	if err != nil || want.OS == "" || want.Architecture == "" {
		return nil, fmt.Errorf("platform %q: want OS/ARCHITECTURE, as in linux/amd64", o.Platform)
	}
	r := &reader{ctx: ctx, want: *want}
	var i *Image
	switch in.Kind {
	case OCI:
		r.store = folder(in.Path)
		i, err = r.layout(in, func() ([]byte, error) { return readSmall(filepath.Join(in.Path, indexFile)) })
	case OCIArchive, DockerArchive:
		var a *archive
		if a, err = openArchive(in.Path, o.MaxBytes); err != nil {
			break
		}
		r.store = a
		if in.Kind == DockerArchive {
			i, err = r.docker(in, a)
		} else {
			i, err = r.layout(in, func() ([]byte, error) { return a.small(indexFile) })
		}
	case Registry:
		i, err = r.registry(in.Path, o)
	default:
		return nil, fmt.Errorf("%s: it is no container image", in)
	}
	if err != nil {
		if r.store != nil {
			err = errors.Join(err, r.store.Close())
		}
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	i.store = r.store
	return i, nil
}

// reader follows digests from an index to layers.
type reader struct {
	ctx   context.Context
	store store
	want  v1.Platform
}

func (r *reader) layout(in Input, index func() ([]byte, error)) (*Image, error) {
	text, err := index()
	if err != nil {
		return nil, fmt.Errorf("OCI layout: %w", err)
	}
	list, err := v1.ParseIndexManifest(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("OCI layout: %s: %w", indexFile, err)
	}
	named, err := byName(list.Manifests, in)
	if err != nil {
		return nil, err
	}
	d, err := r.choose(named)
	if err != nil {
		return nil, err
	}
	return r.follow(d, 0)
}

// maxDepth is how deep indexes may nest: layout, list of platforms, and one to spare.
const maxDepth = 4

// follow goes from a manifest or index to the image.
func (r *reader) follow(d v1.Descriptor, depth int) (*Image, error) {
	text, err := r.document(d)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	switch {
	case depth > maxDepth:
		return nil, errors.New("its indexes nest too deep")
	case d.MediaType.IsIndex():
		list, err := v1.ParseIndexManifest(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", d.Digest, err)
		}
		next, err := r.choose(list.Manifests)
		if err != nil {
			return nil, err
		}
		return r.follow(next, depth+1)
	case !d.MediaType.IsImage():
		return nil, fmt.Errorf("manifest %s: it is %q, not an image; docker's schema 1 has to be converted, by pulling and pushing it once", d.Digest, d.MediaType)
	}
	m, err := v1.ParseManifest(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	return r.image(d, m)
}

func (r *reader) image(d v1.Descriptor, m *v1.Manifest) (*Image, error) {
	// Other artifacts (charts, signatures, snapshots of rouse's own) have other configurations.
	if !m.Config.MediaType.IsConfig() {
		return nil, fmt.Errorf("manifest %s: an artifact of type %q, not a container image", d.Digest, m.Config.MediaType)
	}
	text, err := r.document(m.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", m.Config.Digest, err)
	}
	c, err := r.config(text, len(m.Layers))
	if err != nil {
		return nil, err
	}
	i := &Image{Config: c.Config, Platform: platformOf(c).String(), Digest: d.Digest.String()}
	for n, l := range m.Layers {
		if err := checkLayer(l); err != nil {
			return nil, fmt.Errorf("layer %d: %w", n+1, err)
		}
		i.Layers = append(i.Layers, r.layer(func() (io.ReadCloser, error) { return r.blob(l) }, c.RootFS.DiffIDs[n]))
	}
	return i, nil
}

// config reads a configuration and checks that it is for the platform, and for so many layers.
func (r *reader) config(text []byte, layers int) (*v1.ConfigFile, error) {
	c, err := v1.ParseConfigFile(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if have := platformOf(c); c.Architecture != "" && !fits(have, r.want) {
		return nil, fmt.Errorf("it is for %s, and the guest is %s; use another image, or another --platform and its kernel and init", have, r.want)
	}
	if len(c.RootFS.DiffIDs) != layers {
		return nil, fmt.Errorf("configuration: it tells of %d layers, and there are %d", len(c.RootFS.DiffIDs), layers)
	}
	return c, nil
}

func platformOf(c *v1.ConfigFile) v1.Platform {
	return v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
}

func fits(have, want v1.Platform) bool {
	return have.OS == want.OS && have.Architecture == want.Architecture && (have.Variant == want.Variant || have.Variant == "" || want.Variant == "")
}

// checkLayer refuses what cannot be read, with the reason, before gigabytes are.
func checkLayer(d v1.Descriptor) error {
	t := string(d.MediaType)
	switch {
	case strings.HasSuffix(t, "+encrypted"):
		return errors.New("it is encrypted; decrypt the image first (skopeo copy --decryption-key)")
	case !d.MediaType.IsLayer() && !strings.Contains(t, ".tar"):
		return fmt.Errorf("it is %q, not a tar", t)
	}
	return nil
}

// layer unpacks a blob and checks that it becomes what the configuration says.
func (r *reader) layer(open func() (io.ReadCloser, error), diff v1.Hash) image.Layer {
	return func() (io.ReadCloser, error) {
		packed, err := open()
		if err != nil {
			return nil, err
		}
		tar, err := image.Decompress(packed)
		if err != nil {
			return nil, errors.Join(err, packed.Close())
		}
		both := closers{tar, packed}
		v, err := newVerified(tar, diff, -1)
		if err != nil {
			return nil, errors.Join(err, both.Close())
		}
		return &readCloser{v, both}, nil
	}
}

type readCloser struct {
	io.Reader
	io.Closer
}

type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for _, one := range c {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// blob is the bytes of d, checked.
func (r *reader) blob(d v1.Descriptor) (io.ReadCloser, error) {
	b, err := r.store.open(r.ctx, d)
	if err != nil {
		return nil, err
	}
	v, err := newVerified(b, d.Digest, d.Size)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return &readCloser{v, b}, nil
}

// document is a whole small blob.
func (r *reader) document(d v1.Descriptor) ([]byte, error) {
	if d.Size < 0 || d.Size > maxDocument {
		return nil, fmt.Errorf("%d bytes, more than %d", d.Size, maxDocument)
	}
	b, err := r.blob(d)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(b)
	return text, errors.Join(err, b.Close())
}

// folder is the store of an OCI layout on disk.
type folder string

func (f folder) open(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	b, err := os.Open(filepath.Join(string(f), blobPath(d.Digest)))
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w; is the layout whole?", err)
	}
	return b, err
}

func (folder) Close() error { return nil }

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if len(text) > maxDocument {
		return nil, fmt.Errorf("%s: more than %d bytes", name, maxDocument)
	}
	return text, err
}
