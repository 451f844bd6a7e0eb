package image

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Contents is an image as far as it is gathered, for Spec.Choose.
type Contents struct{ b *builder }

// Choice is what Spec.Choose returns.
type Choice struct {
	Config            []byte // becomes /etc/rouse.toml; nil: none is written
	Modules, Commands []string
	Folders           []string // made if they are missing: working directories, volumes
	Files             []File   // added last
}

func (b *builder) choose() error {
	if b.spec.Choose == nil {
		return nil
	}
	c, err := b.spec.Choose(&Contents{b})
	if err != nil {
		return err
	}
	b.spec.Config, b.spec.Modules, b.spec.Commands = c.Config, c.Modules, c.Commands
	for _, dir := range c.Folders {
		if err := b.makeFolder(dir); err != nil {
			return err
		}
	}
	for _, f := range c.Files {
		if err := b.addFile(f); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) makeFolder(dir string) error {
	if e := b.image.tree.lookup(dir); e != nil {
		if !e.isDir() {
			return fmt.Errorf("%s: the image has it, and not as a folder", dir)
		}
		return nil
	}
	return b.image.tree.put(dir, &entry{mode: modeDir | 0o755})
}

// List are the names in a folder, sorted; none if it is not there.
func (c *Contents) List(dir string) []string {
	at, err := c.b.image.tree.resolve(dir, true)
	if err != nil {
		return nil
	}
	var names []string
	for p := range c.b.image.tree.entries {
		if path.Dir(p) == at && p != "/" {
			names = append(names, path.Base(p))
		}
	}
	slices.Sort(names)
	return names
}

// IsDir tells whether the guest would find a folder at name.
func (c *Contents) IsDir(name string) bool {
	e := c.b.image.tree.lookup(name)
	return e != nil && e.isDir()
}

// Has tells whether the guest would find something at name.
func (c *Contents) Has(name string) bool { return c.b.image.tree.lookup(name) != nil }

// MaxText is the largest file that ReadFile reads, in bytes.
const MaxText = 1 << 20

// ErrMissing is a file that is not in the image.
var ErrMissing = errors.New("it is not in the image")

// ReadFile reads a small plain file. ErrMissing if there is none of that name.
func (c *Contents) ReadFile(name string) ([]byte, error) {
	e := c.b.image.tree.lookup(name)
	switch {
	case e == nil:
		return nil, fmt.Errorf("%s: %w", name, ErrMissing)
	case !e.isRegular():
		return nil, fmt.Errorf("%s: it is not a plain file", name)
	case e.length() > MaxText:
		return nil, fmt.Errorf("%s: %d bytes, more than %d", name, e.length(), MaxText)
	}
	r, err := e.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// LookPath finds the program that a container would run as file: as it stands if it is absolute, from dir if it has a slash
// ("./run"), else in the folders of searchPath, a PATH. The error says where it was looked for.
func (c *Contents) LookPath(file, searchPath, dir string) (string, error) {
	if path.IsAbs(file) {
		return file, nil // whether it is there, Commands tells
	}
	if strings.Contains(file, "/") {
		return path.Join("/", dir, file), nil
	}
	for _, d := range strings.Split(searchPath, ":") {
		if !path.IsAbs(d) {
			d = path.Join("/", dir, d)
		}
		p := path.Join(d, file)
		if e := c.b.image.tree.lookup(p); e != nil && e.isRegular() && e.mode&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: no such program in the image's PATH (%s)", file, searchPath)
}
