package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/rootfs/kmod"
)

// LoadModules loads names and all that they need, in dependency order, from root/lib/modules/<running release>;
// root "" is "/". Names that are loaded or built in are fine, and so is a kernel that knows no modules at
// all: what it has, it has. The others are loaded even if one fails; the error joins one [ModuleError] each, which
// matches fs.ErrNotExist if there is no such module. Parameters are taken from the kernel command line.
func LoadModules(root string, names []string) error {
	l, err := newLoader(root, false)
	if err != nil || l == nil {
		return err
	}
	return l.load(names)
}

// Coldplug loads the modules for all devices that are there but were found before their driver was: it
// looks up every modalias below /sys/devices. One that fails does not stop the others.
func Coldplug(root string) error {
	l, err := newLoader(root, true)
	if err != nil || l == nil || l.index == nil {
		return err
	}
	// Loading a bus driver (virtio_pci) brings new devices, so look again until a look finds nothing new.
	var errs []error
	seen := map[string]bool{}
	for {
		fresh := l.wanted(seen)
		if len(fresh) == 0 {
			return errors.Join(errs...)
		}
		errs = append(errs, l.load(fresh))
	}
}

type loader struct {
	dir     string
	index   *kmod.Index // nil: no modules.dep in dir
	cmdline map[string][]string
	failed  map[string]bool
}

// newLoader returns nil without error if the kernel has no modules.
func newLoader(root string, aliases bool) (*loader, error) {
	if _, err := os.Stat("/proc/modules"); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // CONFIG_MODULES=n
	}
	release, err := Release()
	if err != nil {
		return nil, err
	}
	l := &loader{dir: filepath.Join("/", root, "lib/modules", release), cmdline: Cmdline(), failed: map[string]bool{}}
	l.index, err = kmod.Read(os.DirFS(l.dir), aliases)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("modules of %s: %w", l.dir, err)
	}
	return l, nil
}

// Release is the running kernel's release, as `uname -r` prints it.
func Release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

func (l *loader) load(names []string) error {
	wanted := make([]string, 0, len(names))
	for _, n := range names {
		if !loaded(n) {
			wanted = append(wanted, n)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	if l.index == nil {
		return l.noIndex(wanted)
	}
	plan, err := l.index.Resolve(wanted)
	errs := l.missing(err)
	for _, m := range plan {
		if err := l.loadOne(m); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// missing makes ModuleErrors of what Resolve joined.
func (l *loader) missing(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if err == nil {
			return nil
		}
		return []error{l.missingOne(err)}
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, l.missing(e)...)
	}
	return errs
}

func (l *loader) missingOne(err error) error {
	var m *kmod.MissingError
	if !errors.As(err, &m) {
		return err
	}
	return &ModuleError{Name: m.Name, Err: err, Cure: "not in " + l.dir + "; name it when building the image, or use a kernel that has it"}
}

func (l *loader) noIndex(names []string) error {
	var errs []error
	for _, n := range names {
		errs = append(errs, &ModuleError{Name: n, Err: fs.ErrNotExist, Cure: "no " + l.dir + "/modules.dep; build the image with this kernel's modules"})
	}
	return errors.Join(errs...)
}

// loaded is true for loaded modules and for those built-in ones that have parameters or a version.
func loaded(name string) bool {
	_, err := os.Stat("/sys/module/" + kmod.Name(name))
	return err == nil
}

func (l *loader) loadOne(m kmod.Module) error {
	if loaded(m.Name) {
		return nil
	}
	for _, n := range m.Needs {
		if l.failed[n] {
			l.failed[m.Name] = true
			return &ModuleError{Name: m.Name, Err: fmt.Errorf("it needs %s, which could not be loaded", n)}
		}
	}
	err := finit(filepath.Join(l.dir, m.Path), Parameters(l.cmdline, m.Name))
	if err == nil || errors.Is(err, unix.EEXIST) {
		return nil
	}
	l.failed[m.Name] = true
	return &ModuleError{Name: m.Name, Err: err, Cure: cure(m, err)}
}

func finit(file, parameters string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if kmod.Compression(file) != "" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE // Linux 5.17, include/uapi/linux/module.h
	}
	return unix.FinitModule(int(f.Fd()), parameters, flags)
}

// cure turns finit_module's errno into what to do about it.
func cure(m kmod.Module, err error) string {
	format := kmod.Compression(m.Path)
	switch {
	case format != "" && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)):
		return "the file is compressed: the kernel needs CONFIG_MODULE_DECOMPRESS with CONFIG_MODULE_COMPRESS_" +
			map[string]string{"gz": "GZIP", "xz": "XZ", "zst": "ZSTD"}[format] + ", or decompress the modules, run depmod, and build the image again"
	case errors.Is(err, unix.ENOEXEC):
		return "the file was built for another kernel or architecture"
	case errors.Is(err, unix.ENOENT):
		return "a symbol is missing: the kernel log names it"
	case errors.Is(err, unix.EKEYREJECTED) || errors.Is(err, unix.ENOKEY):
		return "the kernel wants a signature (module.sig_enforce or lockdown)"
	case errors.Is(err, unix.EPERM):
		return "needs CAP_SYS_MODULE, and kernel.modules_disabled must be 0"
	case errors.Is(err, unix.ENODEV):
		return "the module found no such hardware"
	}
	return ""
}

// wanted walks /sys/devices for modaliases whose modules were not seen before.
func (l *loader) wanted(seen map[string]bool) []string {
	var fresh []string
	_ = filepath.WalkDir("/sys/devices", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "modalias" {
			return nil // a device that goes away while we look is not there
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return nil
		}
		for _, n := range l.index.Match(strings.TrimSpace(string(b))) {
			if !seen[n] {
				seen[n] = true
				fresh = append(fresh, n)
			}
		}
		return nil
	})
	return fresh
}
