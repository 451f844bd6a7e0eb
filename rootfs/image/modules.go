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
	return b.putModules(x, plan, dir, path.Join("/lib/modules", release))
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

func (b *builder) putModules(x *kmod.Index, plan []kmod.Module, from, to string) error {
	for _, m := range plan {
		b.image.Modules = append(b.image.Modules, m.Name)
		if err := b.addFile(File{Path: path.Join(to, m.Path), Mode: 0o644, Source: filepath.Join(from, m.Path)}); err != nil {
			return err
		}
	}
	dep, softdep, alias := x.Prune(plan)
	for name, text := range map[string]string{"modules.dep": dep, "modules.softdep": softdep, "modules.alias": alias,
		"modules.builtin": x.BuiltinList()} {
		if err := b.addFile(File{Path: path.Join(to, name), Mode: 0o644, Data: []byte(text)}); err != nil {
			return err
		}
	}
	return nil
}
