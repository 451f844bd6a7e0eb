package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// registry finds an image by its reference. A tag leads to a digest once, and everything else is fetched by digest.
func (r *reader) registry(text string, o Options) (*Image, error) {
	var options []name.Option
	if o.PlainHTTP {
		options = append(options, name.Insecure)
	}
	ref, err := name.ParseReference(text, options...)
	if err != nil {
		return nil, fmt.Errorf("reference: %w; want HOST/NAME:TAG or HOST/NAME@sha256:DIGEST", err)
	}
	keys := o.Keychain
	if keys == nil {
		keys = authn.DefaultKeychain
	}
	puller, err := remote.NewPuller(remote.WithAuthFromKeychain(keys), remote.WithUserAgent("rouse"))
	if err != nil {
		return nil, err
	}
	s := &remoteStore{puller: puller, where: ref.Context()}
	r.store = s
	got, err := puller.Get(r.ctx, ref)
	if err != nil {
		return nil, explain(err)
	}
	s.first = got
	return r.follow(got.Descriptor, 0)
}

// remoteStore is a repository of a registry.
type remoteStore struct {
	puller *remote.Puller
	where  name.Repository
	first  *remote.Descriptor // what the reference led to; not fetched twice
}

func (s *remoteStore) open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if s.first != nil && d.Digest == s.first.Digest {
		return io.NopCloser(bytes.NewReader(s.first.Manifest)), nil
	}
	ref := s.where.Digest(d.Digest.String())
	if d.MediaType.IsImage() || d.MediaType.IsIndex() {
		got, err := s.puller.Get(ctx, ref)
		if err != nil {
			return nil, explain(err)
		}
		return io.NopCloser(bytes.NewReader(got.Manifest)), nil
	}
	l, err := s.puller.Layer(ctx, ref)
	if err != nil {
		return nil, explain(err)
	}
	return newRetried(ctx, time.Second, func() (io.ReadCloser, error) {
		b, err := l.Compressed()
		if err != nil {
			return nil, explain(err)
		}
		return b, nil
	})
}

func (s *remoteStore) Close() error { return nil }

// explain adds what to do about an answer.
func explain(err error) error {
	var t *transport.Error
	if !errors.As(err, &t) {
		return err
	}
	switch t.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w; log in with docker login or podman login, or check the name: registries deny what does not exist", err)
	case http.StatusNotFound:
		return fmt.Errorf("%w; check name and tag", err)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w; the registry wants fewer requests: log in, or wait", err)
	}
	return err
}
