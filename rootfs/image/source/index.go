package source

import (
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Annotations that name an image in an index: OCI image-spec v1.1, annotations.md, and containerd's.
const (
	refName        = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
	// buildkit's attestations stand beside images in an index and are none.
	attestation = "vnd.docker.reference.type"
)

// byName takes the images of a layout that have the name that was asked for. Without one all that there are must be one image:
// the same under several names, or for a platform each.
func byName(list []v1.Descriptor, in Input) ([]v1.Descriptor, error) {
	var found []v1.Descriptor
	var names []string
	for _, d := range list {
		if d.Annotations[attestation] != "" {
			continue
		}
		names = append(names, nameOf(d))
		if in.Name == "" || matches(d, in.Name) {
			found = append(found, d)
		}
	}
	if len(found) == 0 && in.Name != "" || !oneImage(found) {
		return nil, severalError(in, len(names), names)
	}
	return found, nil
}

func oneImage(list []v1.Descriptor) bool {
	for n, a := range list {
		for _, b := range list[:n] {
			apart := a.Platform != nil && b.Platform != nil && !a.Platform.Equals(*b.Platform)
			if a.Digest != b.Digest && !apart {
				return false
			}
		}
	}
	return true
}

func nameOf(d v1.Descriptor) string {
	if n := d.Annotations[containerdName]; n != "" {
		return n
	}
	if n := d.Annotations[refName]; n != "" {
		return n
	}
	return d.Digest.String()
}

func matches(d v1.Descriptor, name string) bool {
	full := d.Annotations[containerdName]
	return d.Annotations[refName] == name || full == name || strings.HasSuffix(full, ":"+name) || d.Digest.String() == name
}

// choose takes the one for the platform; else one that does not say what it is for: its configuration does.
func (r *reader) choose(list []v1.Descriptor) (v1.Descriptor, error) {
	var silent []v1.Descriptor
	var have []string
	for _, d := range list {
		switch {
		case d.Annotations[attestation] != "" || d.Platform != nil && d.Platform.OS == "unknown":
		case d.Platform == nil || d.Platform.OS == "":
			silent = append(silent, d)
		case fits(*d.Platform, r.want):
			return d, nil
		default:
			have = append(have, d.Platform.String())
		}
	}
	if len(silent) > 0 {
		return silent[0], nil
	}
	if len(have) == 0 {
		return v1.Descriptor{}, errors.New("no image is in it")
	}
	return v1.Descriptor{}, fmt.Errorf("no image for %s in it; there are: %s", r.want, strings.Join(have, ", "))
}
