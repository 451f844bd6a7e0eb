// Package image builds, on the host, the image that a guest boots from: an initramfs with rouse as /init.
//
// The easy case: [Build] with a [Spec] that names the init binary, the configuration, a kernel's modules and
// the service's files. No root is needed: ownership and device nodes are only written down, never made.
//
// The race: none may show. The same input gives the same bytes, whoever builds, wherever and in whatever
// order a folder lists its files: entries are sorted, times are Spec.Epoch, inode numbers are counted, and
// compression runs in one thread. A file that changes while it is read is an error.
//
// The mechanism: [New] gathers all entries in one tree (an optional folder first, then what rouse itself
// needs, each path resolved through the tree's own symbolic links, so that sbin -> usr/sbin works), checks
// it as the guest would use it, and [Image.WriteCPIO] renders it. Everything that can be wrong with an image is to be
// found here, with the file's name and what to do about it, and not by a guest that does not boot.
package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// Spec says what goes into an image.
type Spec struct {
	Init   string // path of the init binary on the host: a static ELF; becomes /init
	Config []byte // becomes /etc/rouse.toml; nil: none is written
	// ModulesDir is a folder with lib/modules/<release> in it, made by depmod; "" if the kernel needs none. Modules
	// must exist there or be built in; Optional ones are taken if they are there. Both with all they need.
	ModulesDir        string
	Release           string // which release, if ModulesDir has several
	Modules, Optional []string
	// Decompress says whether compressed modules are stored plain: yes, no, or auto (also ""): if they are not to be Signed, or the kernel is older than
	// 5.17. A newer kernel without CONFIG_MODULE_DECOMPRESS needs yes.
	Decompress string
	// Signed keeps the signatures of modules, for a kernel that insists on them (CONFIG_MODULE_SIG_FORCE,
	// module.sig_enforce, lockdown). Without, the kernel calls itself tainted (E), and loads a module ten times faster:
	// checking costs 65 million instructions each (Debian's 6.12), and whoever could change a module in an image can change all of it.
	Signed bool
	// Choose is asked for the rest when Layers, Dir, Init and Files are in place: what it returns is used in place of Config, Modules
	// and Commands, and besides Files. So can a configuration follow from what an image holds.
	Choose       func(*Contents) (Choice, error)
	Files        []File   // further files, later ones win; they win over Layers and Dir as well
	Layers       []Layer  // tar streams to include, with whiteouts; the first one is the lowest
	MaxBytes     int64    // how large Layers may be in all, unpacked; 0 is DefaultMaxBytes
	Dir          string   // a folder to include whole, above Layers: types, modes, links, owners as on disk; "" for none
	KeepIdentity bool     // keep what [Identity] would strip from Layers and Dir
	Commands     []string // absolute paths in the image that services execute: checked
	Compress     string   // none, gzip or zstd; "" is zstd. See Formats
	Arch         string   // GOARCH of the guest; "" is that of Init
	Epoch        int64    // modification time of everything, seconds since 1970: SOURCE_DATE_EPOCH or 0
}

// File is one file to add.
type File struct {
	Path     string      // absolute, in the image
	Mode     fs.FileMode // type and permissions; a plain file with Mode 0 is 0644, or as Source has it
	Source   string      // the host's file with the content, if Data and Link are empty
	Data     []byte
	Link     string // target of a symbolic link
	UID, GID uint32
}

// Image is a checked tree, ready to be written. Contents are read when it is written.
type Image struct {
	tree      *tree
	epoch     int64
	spoolFile *os.File // contents that came as streams; nil if none did
	spoolSize int64

	Release  string   // of the modules; "" if there are none
	Modules  []string // names in load order
	Stripped []string // paths of Layers and Dir that were left out or emptied, see [Identity]
	Warnings []string // what could not be kept, a sentence each
}

// Formats are the values of Spec.Compress. The kernel needs CONFIG_RD_GZIP or CONFIG_RD_ZSTD for the others.
var Formats = []string{"none", "gzip", "zstd"}

// Build writes the image of s to w: [New], then [Image.WriteCPIO].
func Build(w io.Writer, s Spec) error {
	i, err := New(s)
	if err != nil {
		return err
	}
	return errors.Join(i.WriteCPIO(w, s.Compress), i.Close())
}

// New gathers and checks an image. The error names the file at fault and a cure. Close it after use.
func New(s Spec) (*Image, error) {
	b := &builder{spec: s, image: &Image{tree: newTree(), epoch: s.Epoch}}
	steps := []func() error{
		b.addLayers, // first: everything else wins over them
		b.addDir,
		b.strip,       // of these two only: what is given by name is meant
		b.addSkeleton, // only what Dir has not
		b.addInit,
		b.addFiles,
		b.choose,
		b.addModules,
		b.addConfig,
		b.check, // last: sees the tree as the guest will
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, errors.Join(fmt.Errorf("image: %w", err), b.image.Close())
		}
	}
	return b.image, nil
}

// Size is how many bytes the files of the image have in all. A guest that runs from an initramfs holds them in its memory.
func (i *Image) Size() int64 {
	var size int64
	groups := map[string]bool{}
	for _, e := range i.tree.entries {
		if e.group == "" || !groups[e.group] {
			size += e.length()
		}
		groups[e.group] = true
	}
	return size
}

// Identity is what is taken out of Layers and Dir unless Spec.KeepIdentity: files that make one machine this machine,
// and that all guests of the image would share. Patterns as in path.Match. True: the file stays, empty,
// because its presence means "make one at boot" (machine-id(5)).
var Identity = map[string]bool{
	"/.dockerenv":                        false, // a guest is no container; programs look for it
	"/etc/machine-id":                    true,
	"/var/lib/dbus/machine-id":           false,
	"/var/lib/systemd/random-seed":       false,
	"/var/lib/urandom/random-seed":       false,
	"/var/lib/random-seed":               false,
	"/etc/ssh/ssh_host_*_key":            false,
	"/etc/ssh/ssh_host_*_key.pub":        false,
	"/etc/dropbear/dropbear_*_host_key":  false,
	"/var/lib/systemd/credential.secret": false,
	"/var/lib/NetworkManager/secret_key": false,
}

func (b *builder) strip() error {
	if b.spec.KeepIdentity {
		return nil
	}
	t := b.image.tree
	for _, name := range t.paths() {
		e := t.entries[name]
		for pattern, empty := range Identity {
			if ok, _ := path.Match(pattern, name); !ok || e.isDir() || empty && !e.isRegular() {
				continue
			}
			b.image.Stripped = append(b.image.Stripped, name)
			delete(t.entries, name)
			if empty {
				t.entries[name] = &entry{mode: e.mode, uid: e.uid, gid: e.gid}
			}
		}
	}
	return nil
}

type builder struct {
	spec  Spec
	image *Image
	arch  string

	entries int // of all layers
}

func (b *builder) warn(format string, args ...any) {
	b.image.Warnings = append(b.image.Warnings, fmt.Sprintf(format, args...))
}

// skeleton is the least that programs take for granted. Folders that mounts will cover are here as well: the
// root may be read-only by then.
var skeleton = []File{
	{Path: "/dev", Mode: fs.ModeDir | 0o755},
	{Path: "/etc", Mode: fs.ModeDir | 0o755},
	{Path: "/proc", Mode: fs.ModeDir | 0o555},
	{Path: "/root", Mode: fs.ModeDir | 0o700},
	{Path: "/run", Mode: fs.ModeDir | 0o755},
	{Path: "/sys", Mode: fs.ModeDir | 0o555},
	{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	{Path: "/var", Mode: fs.ModeDir | 0o755},
	{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")},
	{Path: "/etc/group", Data: []byte("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")},
	{Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")},
	// Without it the C library and Go ask DNS before /etc/hosts.
	{Path: "/etc/nsswitch.conf", Data: []byte("passwd: files\ngroup: files\nhosts: files dns\n")},
}

func (b *builder) addSkeleton() error {
	for _, f := range skeleton {
		// `docker export` leaves empty files where the runtime mounted its own.
		if e := b.image.tree.lookup(f.Path); e != nil && (!e.isRegular() || e.length() > 0) {
			continue
		}
		if err := b.addFile(f); err != nil {
			return err
		}
	}
	return nil
}

// addInit adds what the kernel starts, and the two nodes without which it cannot start: a Go program dies before main if
// descriptors 0 to 2 are closed and /dev/null is missing. Numbers: linux/Documentation/admin-guide/devices.txt.
func (b *builder) addInit() error {
	if b.spec.Init == "" {
		return fmt.Errorf("no init binary is named: give the path of rouse's init")
	}
	t := b.image.tree
	if err := t.put("/dev/console", &entry{mode: modeChar | 0o600, major: 5, minor: 1}); err != nil {
		return err
	}
	if err := t.put("/dev/null", &entry{mode: modeChar | 0o666, major: 1, minor: 3}); err != nil {
		return err
	}
	if err := b.addFile(File{Path: "/init", Mode: 0o755, Source: b.spec.Init}); err != nil {
		return err
	}
	// On a disk the kernel looks for /sbin/init and not for /init. An image that has an init of its own keeps it, and
	// is started with init=/init.
	if t.lookup("/sbin/init") == nil {
		if err := b.addFile(File{Path: "/sbin/init", Link: "/init"}); err != nil {
			return err
		}
	}
	return b.addFile(File{Path: "/sbin/rousectl", Link: "/init"})
}

func (b *builder) addConfig() error {
	if b.spec.Config == nil {
		return nil
	}
	return b.addFile(File{Path: "/etc/rouse.toml", Mode: 0o644, Data: b.spec.Config})
}

func (b *builder) addFiles() error {
	for _, f := range b.spec.Files {
		if err := b.addFile(f); err != nil {
			return err
		}
	}
	return nil
}
