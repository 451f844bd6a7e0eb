package rootfs

import (
	"strconv"
	"strings"
	"time"

	"rouse/internal/fmt"
)

// Root is the root file system that an initramfs hands over to.
type Root struct {
	Device   string // as ParseDevice reads it; for virtiofs and 9p the share's tag
	Type     string // "" is found out by Probe
	Options  string // rootflags=
	ReadOnly bool
	// Overlay puts a tmpfs above a root that is then never written: clones of one disk stay apart.
	Overlay bool
	Wait    time.Duration // for the device to appear
}

// DeviceTimeout is how long a device is waited for if nothing else is said.
const DeviceTimeout = 10 * time.Second

// ParseRoot reads root=, rootfstype=, rootflags=, ro, rw, rootdelay= and overlayroot= of a kernel command line, as
// linux/Documentation/admin-guide/kernel-parameters.txt has them; overlayroot=tmpfs and =disabled as in Ubuntu. False: there is no root=, so the guest
// stays in the initramfs. As for the kernel, the root is read-only unless rw is given.
func ParseRoot(cmdline map[string][]string) (Root, bool, error) {
	device := last(cmdline, "root")
	if device == "" {
		return Root{}, false, nil
	}
	r := Root{Device: device, Wait: DeviceTimeout, Type: last(cmdline, "rootfstype"), Options: last(cmdline, "rootflags")}
	_, writable := cmdline["rw"]
	r.ReadOnly = !writable
	switch v := last(cmdline, "overlayroot"); v {
	case "tmpfs":
		r.Overlay = true
	case "", "disabled":
	default:
		return Root{}, false, fmt.Errorf("overlayroot=%s: want tmpfs or disabled", v)
	}
	if v := last(cmdline, "rootdelay"); v != "" {
		seconds, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return Root{}, false, fmt.Errorf("rootdelay=%s: want seconds", v)
		}
		r.Wait += time.Duration(seconds) * time.Second
	}
	if !r.shared() {
		if _, err := ParseDevice(device); err != nil {
			return Root{}, false, fmt.Errorf("root=%s: %w", device, err)
		}
	}
	return r, true, nil
}

// shared tells whether the host serves the files, so that there is no device to wait for.
func (r *Root) shared() bool { return isShared(r.Type) }

func isShared(kind string) bool { return kind == "virtiofs" || kind == "9p" }

func last(cmdline map[string][]string, name string) string {
	if v := cmdline[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// immutable file systems can only be mounted read-only.
func immutable(kind string) bool { return kind == "squashfs" || kind == "erofs" || kind == "iso9660" }

// ParseMount makes a row of what a configuration says, in the words of fstab(5): source may be LABEL= or UUID=, kind may
// be "auto". Options that mount(8) knows as flags become flags, nofail becomes NoFail, those for other
// programs (x-..., _netdev, noauto's opposite auto, defaults) are dropped, the rest goes to the file system.
func ParseMount(source, target, kind, options string) (Mount, error) {
	m := Mount{Source: source, Target: target, Type: kind, Mode: modeDirectory}
	if !strings.HasPrefix(target, "/") || target == "/" {
		return Mount{}, fmt.Errorf("mount %q: want an absolute path other than the root", target)
	}
	if kind == "" && !strings.Contains(","+options+",", "bind,") {
		return Mount{}, fmt.Errorf("mount %s: no type; give the file system's type, or auto", target)
	}
	var rest []string
	for _, o := range strings.Split(options, ",") {
		switch {
		case o == "" || o == "defaults" || o == "auto" || o == "_netdev" || strings.HasPrefix(o, "x-"):
		case o == "nofail":
			m.NoFail = true
		case !m.setFlag(o):
			rest = append(rest, o)
		}
	}
	m.Options = strings.Join(rest, ",")
	return m, nil
}

// setFlag returns false if o is no flag of mount(2).
func (m *Mount) setFlag(o string) bool {
	for _, f := range flagNames {
		if o == f.name {
			m.Flags |= f.flag
			return true
		}
		if o == f.opposite {
			m.Flags &^= f.flag
			return true
		}
	}
	return false
}

// overlayDirs are the folders that an overlay needs to exist.
func overlayDirs(options string) []string {
	var out []string
	for _, o := range strings.Split(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		if name == "upperdir" || name == "workdir" {
			out = append(out, value)
		}
	}
	return out
}
