package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ErrDigest is content that is not what a digest or size says.
var ErrDigest = errors.New("it is not what its digest says: damaged or tampered with")

// verified checks digest and size while bytes go by; the end comes only if both are right.
type verified struct {
	r    io.Reader
	h    hash.Hash
	want v1.Hash
	left int64 // -1: any size
	err  error
}

func newVerified(r io.Reader, want v1.Hash, size int64) (*verified, error) {
	if want.Algorithm != "sha256" {
		return nil, fmt.Errorf("digest %s: only sha256 is known here", want)
	}
	return &verified{r: r, h: sha256.New(), want: want, left: size}, nil
}

func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.left >= 0 && int64(len(p)) > v.left+1 {
		p = p[:v.left+1]
	}
	n, err := v.r.Read(p)
	v.h.Write(p[:n])
	switch {
	case v.left >= 0 && int64(n) > v.left:
		n, err = 0, fmt.Errorf("%s: more bytes than expected: %w", v.want, ErrDigest)
	case v.left >= 0:
		v.left -= int64(n)
	}
	if err == io.EOF && (v.left > 0 || hex.EncodeToString(v.h.Sum(nil)) != v.want.Hex) {
		err = fmt.Errorf("%s: %w", v.want, ErrDigest)
	}
	v.err = err
	return n, err
}
