package source

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// docker reads docker save's own list: image/spec/v1.2.md of moby. Layers are files of any name there.
func (r *reader) docker(in Input, a *archive) (*Image, error) {
	text, err := a.small(dockerManifest)
	if err != nil {
		return nil, fmt.Errorf("docker archive: %w", err)
	}
	var list []dockerImage
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("docker archive: %s: %w", dockerManifest, err)
	}
	one, err := dockerByName(list, in)
	if err != nil {
		return nil, err
	}
	if text, err = a.small(one.Config); err != nil {
		return nil, fmt.Errorf("docker archive: %w", err)
	}
	sum := sha256.Sum256(text)
	digest := hex.EncodeToString(sum[:])
	// It is named by its digest, before docker 25 with .json behind it.
	if base := strings.TrimSuffix(filepath.Base(one.Config), ".json"); len(base) == len(digest) && base != digest {
		return nil, fmt.Errorf("configuration %s: %w", one.Config, ErrDigest)
	}
	c, err := r.config(text, len(one.Layers))
	if err != nil {
		return nil, err
	}
	i := &Image{Config: c.Config, Platform: platformOf(c).String(), Digest: "sha256:" + digest}
	for n, name := range one.Layers {
		open := func() (io.ReadCloser, error) {
			s, err := a.section(name)
			if err != nil {
				return nil, err
			}
			return io.NopCloser(s), nil
		}
		i.Layers = append(i.Layers, r.layer(open, c.RootFS.DiffIDs[n]))
	}
	return i, nil
}

type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func dockerByName(list []dockerImage, in Input) (dockerImage, error) {
	var names []string
	for _, d := range list {
		for _, t := range d.RepoTags {
			if in.Name != "" && (t == in.Name || strings.HasSuffix(t, ":"+in.Name)) {
				return d, nil
			}
		}
		names = append(names, d.RepoTags...)
	}
	if in.Name == "" && len(list) == 1 {
		return list[0], nil
	}
	return dockerImage{}, severalError(in, len(list), names)
}

func severalError(in Input, n int, names []string) error {
	slices.Sort(names)
	names = slices.Compact(names)
	if in.Name != "" {
		return fmt.Errorf("no image %q in it; there are: %s", in.Name, strings.Join(names, ", "))
	}
	return fmt.Errorf("it holds %d images (%s); name one: %s:%s:NAME", n, strings.Join(names, ", "), in.Kind, in.Path)
}
