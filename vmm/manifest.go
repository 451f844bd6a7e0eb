package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Files of an image folder and of a snapshot folder, which holds the image it came from: QEMU wants the
// same kernel and initrd beside the memory that they are in.
const (
	KernelFile   = "vmlinuz"
	InitrdFile   = "initrd"
	CmdlineFile  = "cmdline"
	StateFile    = "state" // of CPUs and devices; the memory stands beside it, as StateFile + memorySuffix
	ManifestFile = "manifest.json"
)

// manifestVersion rises when an older rouse could not use a snapshot rightly.
const manifestVersion = 2

// Manifest describes a snapshot folder: what a clone must have alike, and how the snapshot came about.
type Manifest struct {
	Version int       `json:"version"`
	Made    time.Time `json:"made"`
	VMM     string    `json:"vmm,omitempty"` // firecracker or cloud-hypervisor; QEMU if empty
	QEMU    string    `json:"qemu"`          // version that wrote the memory
	Machine string    `json:"machine"`       // versioned name, "pc-q35-7.2"
	CPU     string    `json:"cpu"`
	// CPUFeatures are what the CPU model offered where the snapshot was made; a clone's host must have all.
	CPUFeatures []string `json:"cpu-features,omitempty"`
	Accel       string   `json:"accel"`
	MemoryMiB   int      `json:"memory-mib"`
	CPUs        int      `json:"cpus"`
	Cmdline     string   `json:"cmdline"`
	// Forwards are the guest's ports that were reachable from the host.
	Ports []uint16 `json:"ports,omitempty"`
	// VMGenID is the source's; no clone may have it.
	VMGenID    string `json:"vmgenid"`
	Generation uint32 `json:"generation"`
	// Disks are files of the snapshot, as they were when it was made; clones write to overlays of them.
	Disks []Disk `json:"disks,omitempty"`
	// Files are all files of the snapshot but this one.
	Files map[string]File `json:"files"`
	// Report is the guest's report of the quiesce.
	Report json.RawMessage `json:"report"`
}

// File is how a file of the snapshot must be.
type File struct {
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // of the content, hexadecimal
}

// ReadManifest reads the manifest of a snapshot folder. The files are there and have their sizes; Verify
// reads them.
func ReadManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Manifest{}, fmt.Errorf("snapshot %s: no %s; is it a folder made by rouse bake?", dir, ManifestFile)
	}
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(text)
	if err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	return m, m.checkSizes(dir)
}

// ParseManifest reads a manifest's text and refuses names that lead out of the folder: it may have come
// over a network.
func ParseManifest(text []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return m, err
	}
	if m.Version != manifestVersion {
		return m, fmt.Errorf("version %d, this rouse knows %d; bake it again", m.Version, manifestVersion)
	}
	for name, f := range m.Files {
		if !plainName(name) || name == ManifestFile {
			return m, fmt.Errorf("file %q: want a name without folders", name)
		}
		if f.Size < 0 || len(f.SHA256) != 64 {
			return m, fmt.Errorf("file %s: size %d, digest %q", name, f.Size, f.SHA256)
		}
	}
	for _, d := range m.Disks {
		if _, ok := m.Files[d.Path]; !ok {
			return m, fmt.Errorf("disk %q is not among the files", d.Path)
		}
	}
	if m.VMM != "" {
		return m, nil // its files have other names
	}
	for _, name := range []string{KernelFile, StateFile} {
		if _, ok := m.Files[name]; !ok {
			return m, fmt.Errorf("no file %s", name)
		}
	}
	return m, nil
}

// plainName says that a name stands for a file of the folder itself; names with a dot first are rouse's own.
func plainName(name string) bool {
	return name != "" && name == filepath.Base(name) && name[0] != '.' && name != string(filepath.Separator)
}

func (m Manifest) checkSizes(dir string) error {
	for name, f := range m.Files {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if info.Size() != f.Size {
			return fmt.Errorf("%s: %d bytes, the manifest says %d; it was not copied whole",
				filepath.Join(dir, name), info.Size(), f.Size)
		}
	}
	return nil
}

// MemoryBytes is what state and memory take in all.
func (m Manifest) MemoryBytes() int64 {
	return m.Files[StateFile].Size + m.Files[StateFile+memorySuffix].Size
}

// write puts the manifest into dir, last of all files: a folder without one is no snapshot.
func (m Manifest) write(dir string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ManifestFile), append(text, '\n'), 0o644)
}

// checkHost refuses a QEMU or CPU that the snapshot was not made by: device state is only sure to load in
// the version that wrote it, and a machine that half loads is worse than none.
func (m Manifest) checkHost(ctx context.Context, vm *VM) error {
	qemu, machine, err := vm.identify(ctx)
	if err != nil {
		return err
	}
	if qemu != m.QEMU || machine != m.Machine {
		return fmt.Errorf("snapshot of QEMU %s, machine %s; here is QEMU %s, machine %s; bake it again with this QEMU or install that one",
			m.QEMU, m.Machine, qemu, machine)
	}
	features, err := vm.cpuFeatures(ctx)
	if err != nil {
		return err
	}
	if lack := missing(m.CPUFeatures, features); len(lack) > 0 {
		return fmt.Errorf("snapshot of CPU %s under %s; this host's lacks %s; bake it again here, or with a --cpu that all hosts have",
			m.CPU, m.Accel, strings.Join(lack, ", "))
	}
	return nil
}

// missing are those of want that have lacks, both sorted.
func missing(want, have []string) []string {
	var lack []string
	for _, w := range want {
		if _, ok := slices.BinarySearch(have, w); !ok {
			lack = append(lack, w)
		}
	}
	return lack
}

// cpuFeatures asks QEMU what the CPU model offers here: "max" and "host" are as much as this host has.
func (vm *VM) cpuFeatures(ctx context.Context) ([]string, error) {
	name, _, _ := strings.Cut(vm.c.CPU, ",")
	var expanded struct {
		Model struct{ Props map[string]any }
	}
	args := map[string]any{"type": "full", "model": map[string]string{"name": name}}
	if err := vm.QMP(ctx, "query-cpu-model-expansion", args, &expanded); err != nil {
		return nil, err
	}
	var list []string
	for k, v := range expanded.Model.Props {
		if on, ok := v.(bool); ok && on {
			list = append(list, k)
		}
	}
	slices.Sort(list)
	return list, nil
}

// identify asks QEMU for its version and the machine's versioned name, which an alias such as q35 hides.
func (vm *VM) identify(ctx context.Context) (qemu, machine string, err error) {
	var version struct {
		QEMU struct{ Major, Minor, Micro int }
	}
	if err := vm.QMP(ctx, "query-version", nil, &version); err != nil {
		return "", "", err
	}
	var kind string
	get := map[string]string{"path": "/machine", "property": "type"}
	if err := vm.QMP(ctx, "qom-get", get, &kind); err != nil {
		return "", "", err
	}
	v := version.QEMU
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro), strings.TrimSuffix(kind, "-machine"), nil
}

// linkOrCopy makes dst the same file as src, or a copy where links do not reach.
func linkOrCopy(src, dst string) error {
	if err := os.Link(src, dst); err == nil {
		return nil
	}
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
