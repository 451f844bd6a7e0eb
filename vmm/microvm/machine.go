package microvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"rouse/vmm"
)

// Kinds of VMM, by the names of their programs.
const (
	Firecracker     = "firecracker"
	CloudHypervisor = "cloud-hypervisor"
)

// VsockPort is where the guest's control channel is expected if Machine does not say.
const VsockPort = 1025

// Names of devices and files. A clone's overrides find the devices by them.
const (
	netID       = "eth0"
	vsockSocket = "vsock.sock"
	apiSocket   = "api.sock"
	consoleFile = "console.log"
	guestCID    = 3 // the first that is not reserved; each VMM has its own host side
)

// Machine is what both VMMs can be told.
type Machine struct {
	Kernel    string // Firecracker on x86 wants an uncompressed ELF vmlinux, not a bzImage
	Initrd    string // "" is none
	Cmdline   string
	MemoryMiB int    // 256 if zero
	CPUs      int    // 1 if zero
	Tap       string // TAP device of the host; "" is no network
	MAC       string
	Disks     []vmm.Disk // raw and read-only; a snapshot wants them at the same path
	VsockPath string     // unix socket that the VMM makes
	Console   string     // file for the serial console; "" is the VMM's own output
}

func (m Machine) withDefaults() (Machine, error) {
	if m.Kernel == "" {
		return m, fmt.Errorf("microvm: no kernel")
	}
	if m.MemoryMiB == 0 {
		m.MemoryMiB = 256
	}
	if m.CPUs == 0 {
		m.CPUs = 1
	}
	for _, d := range m.Disks {
		if d.Format != "raw" {
			return m, fmt.Errorf("disk %s: format %q; Firecracker and Cloud Hypervisor clone raw disks", d.Path, d.Format)
		}
		// A snapshot holds the disk's path, not the disk: clones would all write to one.
		if !d.ReadOnly {
			return m, fmt.Errorf("disk %s: clones would all write to it; build with --format squashfs, or with an initrd", d.Path)
		}
	}
	return m, nil
}

// WriteConfig writes the machine as the VMM's own configuration: for Firecracker what --config-file wants, for
// Cloud Hypervisor the body of vm.create.
func WriteConfig(w io.Writer, kind string, m Machine) error {
	m, err := m.withDefaults()
	if err != nil {
		return err
	}
	if _, err := driverOf(kind); err != nil {
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if kind == CloudHypervisor {
		return e.Encode(m.cloudHypervisor())
	}
	return e.Encode(m.firecracker())
}

// CheckKernel refuses what Firecracker does not boot on x86, where it says so only when it is too late.
func CheckKernel(kernel string) error {
	f, err := os.Open(kernel)
	if err != nil {
		return err
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil || string(magic[:]) != "\x7fELF" {
		return fmt.Errorf("%s: not an ELF kernel, which Firecracker wants; extract vmlinux from a bzImage with the kernel's scripts/extract-vmlinux", kernel)
	}
	return nil
}

// The names below are those of Firecracker's src/firecracker/swagger/firecracker.yaml, FullVmConfiguration.
type fcConfig struct {
	BootSource fcBoot    `json:"boot-source"`
	Drives     []fcDrive `json:"drives"`
	Machine    fcMachine `json:"machine-config"`
	Network    []fcNet   `json:"network-interfaces,omitempty"`
	Vsock      *fcVsock  `json:"vsock,omitempty"`
	MMDS       *fcMMDS   `json:"mmds-config,omitempty"`
	Entropy    struct{}  `json:"entropy"`
}

type fcBoot struct {
	Kernel  string `json:"kernel_image_path"`
	Initrd  string `json:"initrd_path,omitempty"`
	Cmdline string `json:"boot_args,omitempty"`
}

type fcDrive struct {
	ID       string `json:"drive_id"`
	Path     string `json:"path_on_host"`
	Root     bool   `json:"is_root_device"`
	ReadOnly bool   `json:"is_read_only"`
}

type fcMachine struct {
	CPUs   int `json:"vcpu_count"`
	Memory int `json:"mem_size_mib"`
}

type fcNet struct {
	ID  string `json:"iface_id"`
	Tap string `json:"host_dev_name"`
	MAC string `json:"guest_mac,omitempty"`
}

type fcVsock struct {
	CID  int    `json:"guest_cid"`
	Path string `json:"uds_path"`
}

type fcMMDS struct {
	Version    string   `json:"version"`
	Interfaces []string `json:"network_interfaces"`
}

func (m Machine) firecracker() fcConfig {
	c := fcConfig{BootSource: fcBoot{m.Kernel, m.Initrd, m.Cmdline}, Machine: fcMachine{m.CPUs, m.MemoryMiB}, Drives: []fcDrive{}}
	for i, d := range m.Disks {
		// With an initrd the root is its business; without one the first disk is it.
		c.Drives = append(c.Drives, fcDrive{fmt.Sprintf("disk%d", i), d.Path, i == 0 && m.Initrd == "", d.ReadOnly})
	}
	if m.Tap != "" {
		c.Network = []fcNet{{netID, m.Tap, m.MAC}}
		// Version 2 wants a token, so that a page in a browser cannot be made to fetch it.
		c.MMDS = &fcMMDS{"V2", []string{netID}}
	}
	if m.VsockPath != "" {
		c.Vsock = &fcVsock{guestCID, m.VsockPath}
	}
	return c
}

// The names below are those of Cloud Hypervisor's vmm/src/api/openapi/cloud-hypervisor.yaml, VmConfig.
type chConfig struct {
	Payload chPayload `json:"payload"`
	CPUs    chCPUs    `json:"cpus"`
	Memory  chMemory  `json:"memory"`
	Disks   []chDisk  `json:"disks,omitempty"`
	Net     []chNet   `json:"net,omitempty"`
	Vsock   *chVsock  `json:"vsock,omitempty"`
	Serial  chConsole `json:"serial"`
	Console chConsole `json:"console"`
	RNG     chRNG     `json:"rng"`
}

type chPayload struct {
	Kernel  string `json:"kernel"`
	Initrd  string `json:"initramfs,omitempty"`
	Cmdline string `json:"cmdline,omitempty"`
}

type chCPUs struct {
	Boot int `json:"boot_vcpus"`
	Max  int `json:"max_vcpus"`
}

type chMemory struct {
	Size int64 `json:"size"` // bytes
}

type chDisk struct {
	ID       string `json:"id"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"readonly"`
}

type chNet struct {
	ID  string `json:"id"`
	Tap string `json:"tap"`
	MAC string `json:"mac,omitempty"`
}

type chVsock struct {
	CID    int    `json:"cid"`
	Socket string `json:"socket"`
}

type chConsole struct {
	Mode string `json:"mode"`
	File string `json:"file,omitempty"`
}

type chRNG struct {
	Source string `json:"src"`
}

func (m Machine) cloudHypervisor() chConfig {
	c := chConfig{Payload: chPayload{m.Kernel, m.Initrd, m.Cmdline}, CPUs: chCPUs{m.CPUs, m.CPUs}, Memory: chMemory{int64(m.MemoryMiB) << 20},
		Serial: chConsole{Mode: "Null"}, Console: chConsole{Mode: "Off"}, RNG: chRNG{"/dev/urandom"}}
	if m.Console != "" {
		c.Serial = chConsole{"File", m.Console}
	}
	for i, d := range m.Disks {
		c.Disks = append(c.Disks, chDisk{fmt.Sprintf("disk%d", i), d.Path, d.ReadOnly})
	}
	if m.Tap != "" {
		c.Net = []chNet{{netID, m.Tap, m.MAC}}
	}
	if m.VsockPath != "" {
		c.Vsock = &chVsock{guestCID, m.VsockPath}
	}
	return c
}

// ImageMachine is the machine of an image folder made by rouse build, with absolute paths.
func ImageMachine(image string) (Machine, error) {
	m, err := RelativeMachine(image)
	if err != nil {
		return m, err
	}
	if image, err = filepath.Abs(image); err != nil {
		return m, err
	}
	m.Kernel, m.Initrd = filepath.Join(image, m.Kernel), filepath.Join(image, m.Initrd)
	for i := range m.Disks {
		m.Disks[i].Path = filepath.Join(image, m.Disks[i].Path)
	}
	return m, nil
}

// RelativeMachine is the same for a VMM that runs in the folder.
func RelativeMachine(image string) (Machine, error) {
	m := Machine{Kernel: vmm.KernelFile, Initrd: vmm.InitrdFile}
	words, err := os.ReadFile(filepath.Join(image, vmm.CmdlineFile))
	if err != nil {
		return m, err
	}
	m.Cmdline = strings.TrimSpace(string(words)) + " console=ttyS0 panic=-1 reboot=k"
	text, err := os.ReadFile(filepath.Join(image, vmm.DisksFile))
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m.Disks)
	}
	return m, err
}
