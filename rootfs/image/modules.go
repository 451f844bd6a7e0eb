package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"rouse/rootfs/kmod"
)

// addModules adds the closure of Modules and Optional, and an index that names just these.
func (b *builder) addModules() error {
	if b.spec.ModulesDir == "" {
		return nil
	}
	release, err := findRelease(b.spec.ModulesDir, b.spec.Release)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.spec.ModulesDir, "lib/modules", release)
	x, err := kmod.Read(os.DirFS(dir), true)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("modules: %s has no modules.dep; make it with: depmod -b %s %s", dir, b.spec.ModulesDir, release)
	}
	if err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	if _, err := x.Resolve(b.spec.Modules); err != nil {
		return fmt.Errorf("modules: %w; kernel %s has no such module: check the name or use another kernel", err, release)
	}
	names := append([]string(nil), b.spec.Modules...)
	for _, n := range b.spec.Optional {
		if _, err := x.Resolve([]string{n}); err != nil {
			b.warn("module %s is not in kernel %s: left out", n, release)
			continue
		}
		names = append(names, n)
	}
	plan, _ := x.Resolve(names) // each resolves by itself, so all do
	b.image.Release = release
	plain, err := b.decompresses(release)
	if err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	to := path.Join("/lib/modules", release)
	for n, m := range plan {
		if plan[n].Path, err = b.putModule(m.Path, dir, to, plain); err != nil {
			return fmt.Errorf("module %s: %w", m.Name, err)
		}
		b.image.Modules = append(b.image.Modules, m.Name)
	}
	return b.putIndex(x, plan, to)
}

func findRelease(root, want string) (string, error) {
	dir := filepath.Join(root, "lib/modules")
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("modules: %w; want a folder with lib/modules/RELEASE in it, such as `dpkg -x` makes from a kernel package", err)
	}
	var found []string
	for _, e := range list {
		if e.IsDir() && (want == "" || e.Name() == want) {
			found = append(found, e.Name())
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("modules: %s holds %d matching releases (%s), want one: name the kernel's release", dir, len(found), strings.Join(found, ", "))
	}
	return found[0], nil
}

// putModule adds one module file and returns its path as the image's index has it.
func (b *builder) putModule(name, from, to string, plain bool) (string, error) {
	source := filepath.Join(from, name)
	format := kmod.Compression(name)
	if !plain || format == "" && b.spec.Signed {
		return name, b.addFile(File{Path: path.Join(to, name), Mode: 0o644, Source: source})
	}
	data, err := plainModule(source)
	if err != nil {
		return "", fmt.Errorf("decompress %s: %w", source, err)
	}
	if !b.spec.Signed {
		data = withoutSignature(data)
	}
	name = strings.TrimSuffix(name, "."+format)
	return name, b.addFile(File{Path: path.Join(to, name), Mode: 0o644, Data: data})
}

func (b *builder) putIndex(x *kmod.Index, plan []kmod.Module, to string) error {
	dep, softdep, alias := x.Prune(plan)
	for name, text := range map[string]string{"modules.dep": dep, "modules.softdep": softdep, "modules.alias": alias,
		"modules.builtin": x.BuiltinList()} {
		if err := b.addFile(File{Path: path.Join(to, name), Mode: 0o644, Data: []byte(text)}); err != nil {
			return err
		}
	}
	return nil
}
