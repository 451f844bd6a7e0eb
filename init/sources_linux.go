package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/config"
	"rouse/internal/fmt"
	"rouse/internal/json"
	"rouse/rootfs"
)

const (
	// configDisk is the label of a filesystem with rouse.toml and rouse.d in its root.
	configDisk = "rouse-config"
	// firmwareFolder is where QEMU's -fw_cfg files are taken from.
	firmwareFolder = "opt/rouse"
)

// configSources are all places that a configuration may stand in, of which later ones win: the image,
// then what the host adds to this machine. carried is the file of an initramfs whose root has none.
func (g *guest) configSources(carried []byte) ([]config.Source, error) {
	list, err := configFiles("/")
	if err != nil {
		return nil, err
	}
	if carried != nil && (len(list) == 0 || list[0].Name != config.Path) {
		list = append([]config.Source{{Name: "initramfs:" + config.Path, Text: carried}}, list...)
	}
	if rootfs.Container() != "" {
		return list, missing(list) // all else speaks of the machine
	}
	for _, add := range []func() ([]config.Source, error){diskSources, firmwareSources, credentialSources, metadataSources} {
		more, err := add()
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		list = append(list, more...)
	}
	list = append(list, overrides(rootfs.Cmdline())...)
	return list, missing(list)
}

func missing(list []config.Source) error {
	if len(list) > 0 {
		return nil
	}
	return fmt.Errorf("configuration: there is no %s; put one into the image (rouse build --config)", config.Path)
}

// metadataSources is what Firecracker's metadata service has at rouse/config: TOML in a string. Nobody is asked on other
// VMMs, where the address may be a cloud's.
func metadataSources() ([]config.Source, error) {
	if !rootfs.IsFirecracker() {
		return nil, nil
	}
	const at = "/rouse/config"
	text, err := rootfs.MMDS(&rootfs.Interface{}, at)
	if errors.Is(err, fs.ErrNotExist) || err != nil && unreachable(err) {
		return nil, nil
	}
	var content string
	if err == nil {
		err = json.Unmarshal(text, &content)
	}
	return []config.Source{{Name: "MMDS " + at, Text: []byte(content)}}, err
}

// configFiles are rouse.toml and rouse.d/*.toml below a root's /etc, or in the root of a disk.
func configFiles(root string) ([]config.Source, error) {
	dir := filepath.Dir(config.Path)
	if root != "/" {
		dir = "/"
	}
	names, _ := filepath.Glob(filepath.Join(root, dir, "rouse.d", "*.toml"))
	sort.Strings(names)
	var list []config.Source
	for _, name := range append([]string{filepath.Join(root, dir, "rouse.toml")}, names...) {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		list = append(list, config.Source{Name: name, Text: text})
	}
	return list, nil
}

// diskSources reads a disk that the host has given to this machine for its configuration.
func diskSources() ([]config.Source, error) {
	device, filesystem, err := rootfs.FindDevice("LABEL="+configDisk, time.Nanosecond) // one look: it is there or not
	if err != nil {
		return nil, nil // most machines have none
	}
	const at = "/run/rouse/config"
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, err
	}
	flags := uintptr(unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC)
	if err := unix.Mount(device, at, filesystem.Type, flags, ""); err != nil {
		return nil, fmt.Errorf("mount %s: %w", device, err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	return configFiles(at)
}

// firmwareSources are fw_cfg files: opt/rouse/NAME.toml is a text, opt/rouse/KEY the value of one key.
func firmwareSources() ([]config.Source, error) {
	files, err := rootfs.FirmwareFiles(firmwareFolder)
	delete(files, "identity") // for a copy, see identity
	return named("fw_cfg "+firmwareFolder+"/", files), err
}

// credentialSources are systemd's credentials of the machine: rouse.NAME.toml is a text, rouse.KEY the
// value of one key; of systemd's own names those that mean the same here.
func credentialSources() ([]config.Source, error) {
	all, err := rootfs.Credentials()
	ours := map[string][]byte{}
	for name, text := range all {
		switch key, ok := strings.CutPrefix(name, "rouse."); {
		case ok:
			ours[key] = text
		case name == "system.hostname":
			ours["hostname"] = text
		case name == "vmm.notify_socket":
			ours["control.notify"] = text
		}
	}
	return named("credential ", ours), err
}

func named(prefix string, files map[string][]byte) []config.Source {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	var list []config.Source
	for _, name := range names {
		s := config.Source{Name: prefix + name, Text: files[name]}
		if !strings.HasSuffix(name, ".toml") {
			s.Setting = true
			s.Text = []byte(name + "=" + strings.TrimRight(string(s.Text), "\r\n"))
		}
		list = append(list, s)
	}
	return list
}

// overrides are the rouse.* parameters of the kernel command line, in a fixed order.
func overrides(cmdline map[string][]string) []config.Source {
	ours := map[string][]byte{}
	for name, values := range cmdline {
		if key, ok := strings.CutPrefix(name, "rouse."); ok {
			ours[key] = []byte(values[len(values)-1])
		}
	}
	list := named("", ours)
	for i := range list {
		list[i].Name = config.CommandLine
	}
	return list
}
