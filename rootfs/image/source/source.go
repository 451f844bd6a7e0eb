// Package source reads what people have and want an image of: container images in their three archive forms and in registries, plain
// tar archives, folders and programs.
//
// The easy case is [Parse], which tells from an argument what it names, and [Open], which gives a container image's
// configuration and its layers, as package image wants them.
//
// The race is with whoever could change what is read: a layout is edited while it is read, a registry or a mirror sends something
// else, a download is cut short. So nothing is believed but the first digest or name: it leads to the manifest, the
// manifest by digest and size to configuration and layers, and the configuration to what each layer is when unpacked. All three are checked
// while the bytes go by, and a layer whose end does not come, or does not fit, is an error of that layer.
//
// The mechanism: each form is a store that opens blobs by their digest (a folder, an indexed tar, a registry); all the rest is the
// same for all. Only docker's own archive has no manifest with digests; there the configuration's
// are all there is. Formats: OCI image-spec v1.1 (manifest.md, image-index.md, image-layout.md, config.md) and moby's image/spec.
package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Kind is a form of input, and the prefix that names it.
type Kind string

// The kinds. Registry is docker:// as well.
const (
	OCI           Kind = "oci"            // folder with an OCI image layout
	OCIArchive    Kind = "oci-archive"    // the same in a tar file
	DockerArchive Kind = "docker-archive" // what docker save writes
	Registry      Kind = "registry"       // an image of a registry
	Dir           Kind = "dir"            // a root file system in a folder
	Tar           Kind = "tar"            // a root file system in a tar file: what docker export writes
	Program       Kind = "bin"            // a static program
)

// Input is one argument, understood.
type Input struct {
	Kind Kind
	Path string // on this machine; the reference for Registry
	Name string // which image, where an archive or layout holds several: its tag, its name or its digest; "" if it holds one
}

// Container tells whether the input is a container image, for [Open].
func (i Input) Container() bool {
	return i.Kind == OCI || i.Kind == OCIArchive || i.Kind == DockerArchive || i.Kind == Registry
}

// String is the input with its prefix.
func (i Input) String() string {
	s := string(i.Kind) + ":" + i.Path
	if i.Name != "" {
		s += ":" + i.Name
	}
	return s
}

// Parse understands an argument. With a prefix it is what the prefix says: oci:PATH[:NAME], oci-archive:PATH[:NAME],
// docker-archive:PATH[:NAME], registry:REFERENCE or docker://REFERENCE, dir:PATH, tar:PATH, bin:PATH. Without one, what is there
// decides: a folder is an OCI layout if it has a file oci-layout, else a root; a file is a program if it is an ELF, else
// a tar, whose contents tell which kind; what is not there is an image of a registry if it has a slash, a colon or an @ in it and does
// not begin like a path.
func Parse(text string) (Input, error) {
	if ref, ok := strings.CutPrefix(text, "docker://"); ok {
		return Input{Kind: Registry, Path: ref}, nil
	}
	for _, k := range []Kind{OCI, OCIArchive, DockerArchive, Registry, Dir, Tar, Program} {
		if rest, ok := strings.CutPrefix(text, string(k)+":"); ok {
			return explicit(k, rest)
		}
	}
	return detect(text)
}

func explicit(k Kind, rest string) (Input, error) {
	i := Input{Kind: k, Path: rest}
	switch {
	case rest == "":
		return i, fmt.Errorf("%s: nothing behind it; write %s:PATH", k, k)
	case k == Registry:
		return i, nil
	case k == OCI || k == OCIArchive || k == DockerArchive:
		i.Path, i.Name = splitName(rest)
	}
	if _, err := os.Stat(i.Path); err != nil {
		return i, fmt.Errorf("%s: %w", k, err)
	}
	return i, nil
}

// splitName cuts PATH:NAME or PATH@DIGEST. A path may have colons itself: the longest one that is there counts.
func splitName(s string) (path, name string) {
	for i := len(s); i > 0; i = strings.LastIndexAny(s[:i], ":@") {
		if _, err := os.Stat(s[:i]); err == nil {
			return s[:i], s[min(i+1, len(s)):]
		}
	}
	return s, ""
}

func detect(text string) (Input, error) {
	st, err := os.Stat(text)
	switch {
	case errors.Is(err, os.ErrNotExist) && strings.ContainsAny(text, "/:@") && !strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "."):
		return Input{Kind: Registry, Path: text}, nil
	case errors.Is(err, os.ErrNotExist) && text != "" && !strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "."):
		return Input{}, fmt.Errorf("%s: no such file or folder; an image of a registry is docker://%s", text, text)
	case err != nil:
		return Input{}, err
	case st.IsDir():
		if _, err := os.Stat(filepath.Join(text, layoutFile)); err == nil {
			return Input{Kind: OCI, Path: text}, nil
		}
		return Input{Kind: Dir, Path: text}, nil
	}
	k, err := kindOfFile(text)
	return Input{Kind: k, Path: text}, err
}

func kindOfFile(name string) (Kind, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); err == nil && bytes.Equal(magic, []byte("\x7fELF")) {
		return Program, nil
	}
	a, err := openArchive(name, 0)
	if err != nil {
		return "", fmt.Errorf("%s: it is neither a program (ELF) nor an archive of an image (tar, plain or compressed by gzip or zstd): %w", name, err)
	}
	defer a.Close()
	switch {
	case a.has(layoutFile) && a.has(indexFile):
		return OCIArchive, nil
	case a.has(dockerManifest):
		return DockerArchive, nil
	}
	return Tar, nil
}
