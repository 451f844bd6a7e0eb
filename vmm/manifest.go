package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
const manifestVersion = 1

// Manifest describes a snapshot folder: what a clone must have alike, and how the snapshot came about.
type Manifest struct {
	Version   int       `json:"version"`
	Made      time.Time `json:"made"`
	QEMU      string    `json:"qemu"`    // version that wrote the memory
	Machine   string    `json:"machine"` // versioned name, "pc-q35-7.2"
	CPU       string    `json:"cpu"`
	Accel     string    `json:"accel"`
	MemoryMiB int       `json:"memory-mib"`
	CPUs      int       `json:"cpus"`
	Cmdline   string    `json:"cmdline"`
	// Forwards are the guest's ports that were reachable from the host.
	Ports []uint16 `json:"ports,omitempty"`
	// VMGenID is the source's; no clone may have it.
	VMGenID    string `json:"vmgenid"`
	Generation uint32 `json:"generation"`
	// Files are the sizes of the machine's state and of its memory: a shorter one is a broken copy.
	Files map[string]int64 `json:"files"`
	// Report is the guest's report of the quiesce.
	Report json.RawMessage `json:"report"`
}

// ReadManifest reads and checks the manifest of a snapshot folder.
func ReadManifest(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Manifest{}, fmt.Errorf("snapshot %s: no %s; is it a folder made by rouse bake?", dir, ManifestFile)
	}
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", path, err)
	}
	if m.Version != manifestVersion {
		return Manifest{}, fmt.Errorf("%s: version %d, this rouse knows %d; bake it again", path, m.Version, manifestVersion)
	}
	for name, size := range m.Files {
		info, err := os.Stat(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			return Manifest{}, err
		}
		if info.Size() != size {
			return Manifest{}, fmt.Errorf("%s: %d bytes, the manifest says %d; it was not copied whole",
				filepath.Join(dir, name), info.Size(), size)
		}
	}
	return m, nil
}

// MemoryBytes is what the snapshot takes in all.
func (m Manifest) MemoryBytes() int64 {
	var sum int64
	for _, size := range m.Files {
		sum += size
	}
	return sum
}

// write puts the manifest into dir, last of all files: a folder without one is no snapshot.
func (m Manifest) write(dir string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ManifestFile), append(text, '\n'), 0o644)
}

// checkHost refuses a QEMU that the snapshot was not made by: device state is only sure to load in the
// version that wrote it, and a machine that half loads is worse than none.
func (m Manifest) checkHost(ctx context.Context, vm *VM) error {
	qemu, machine, err := vm.identify(ctx)
	if err != nil {
		return err
	}
	if qemu != m.QEMU || machine != m.Machine {
		return fmt.Errorf("snapshot of QEMU %s, machine %s; here is QEMU %s, machine %s; bake it again with this QEMU or install that one",
			m.QEMU, m.Machine, qemu, machine)
	}
	return nil
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
