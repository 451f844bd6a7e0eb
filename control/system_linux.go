package control

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

func setClock(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set clock to %s: %w", t.UTC().Format(time.RFC3339Nano), err)
	}
	return nil
}

// clockFromRTC reads the real-time clock, which QEMU keeps in UTC.
func clockFromRTC() error {
	f, err := os.Open("/dev/rtc0")
	if err != nil {
		return fmt.Errorf("no time given, and no clock to ask: %w", err)
	}
	defer f.Close()
	r, err := unix.IoctlGetRTCTime(int(f.Fd()))
	if err != nil {
		return fmt.Errorf("read /dev/rtc0: %w", err)
	}
	return setClock(time.Date(int(r.Year)+1900, time.Month(r.Mon+1), int(r.Mday), int(r.Hour), int(r.Min), int(r.Sec), 0, time.UTC))
}

func kernelInfo() (osInfo, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return osInfo{}, os.NewSyscallError("uname", err)
	}
	return osInfo{
		KernelRelease: unix.ByteSliceToString(u.Release[:]), KernelVersion: unix.ByteSliceToString(u.Version[:]),
		Machine: unix.ByteSliceToString(u.Machine[:]),
	}, nil
}

// Interface is a network interface of the guest, in the protocol's names.
type Interface struct {
	Name      string             `json:"name"`
	MAC       string             `json:"hardware-address,omitempty"`
	Addresses []InterfaceAddress `json:"ip-addresses,omitempty"`
	Counters  *counters          `json:"statistics,omitempty"`
}

// InterfaceAddress is one address of it, with the length of its prefix in bits.
type InterfaceAddress struct {
	Type    string `json:"ip-address-type"` // ipv4 or ipv6
	Address string `json:"ip-address"`
	Prefix  int    `json:"prefix"`
}

type counters struct {
	RxBytes   uint64 `json:"rx-bytes"`
	RxDropped uint64 `json:"rx-dropped"`
	RxErrors  uint64 `json:"rx-errs"`
	RxPackets uint64 `json:"rx-packets"`
	TxBytes   uint64 `json:"tx-bytes"`
	TxDropped uint64 `json:"tx-dropped"`
	TxErrors  uint64 `json:"tx-errs"`
	TxPackets uint64 `json:"tx-packets"`
}

func getInterfaces(_ context.Context, s *Server, _ *arguments) (any, error) {
	list, err := s.guest.Interfaces()
	for i := range list {
		list[i].Counters = readCounters("/sys/class/net/" + list[i].Name + "/statistics/")
	}
	return list, err
}

// readCounters reads the kernel's files (Documentation/ABI/testing/sysfs-class-net-statistics). It gives nil unless all
// are there: clients expect all or none.
func readCounters(dir string) *counters {
	c := &counters{}
	for i, p := range []*uint64{&c.RxBytes, &c.RxDropped, &c.RxErrors, &c.RxPackets, &c.TxBytes, &c.TxDropped, &c.TxErrors, &c.TxPackets} {
		file := "rx_tx_"[i/4*3:][:3] + [...]string{"bytes", "dropped", "errors", "packets"}[i%4]
		data, err := os.ReadFile(dir + file)
		if err != nil {
			return nil
		}
		if *p, err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64); err != nil {
			return nil
		}
	}
	return c
}

type fsInfo struct {
	Name       string     `json:"name"`
	Mountpoint string     `json:"mountpoint"`
	Type       string     `json:"type"`
	Used       uint64     `json:"used-bytes"`
	Total      uint64     `json:"total-bytes"`
	Disk       []diskInfo `json:"disk"`
}

type diskInfo struct {
	PCI    pciAddress `json:"pci-controller"`
	Type   string     `json:"bus-type"`
	Bus    int        `json:"bus"`
	Target int        `json:"target"`
	Unit   int        `json:"unit"`
	Device string     `json:"dev,omitempty"`
}

type pciAddress struct {
	Domain   int64 `json:"domain"`
	Bus      int64 `json:"bus"`
	Slot     int64 `json:"slot"`
	Function int64 `json:"function"`
}

func getFSInfo(_ context.Context, _ *Server, _ *arguments) (any, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	all := []fsInfo{}
	for _, m := range diskMounts(string(data)) {
		info := fsInfo{Name: filepath.Base(m.source), Mountpoint: m.target, Type: m.fstype, Disk: []diskInfo{}}
		var st unix.Statfs_t
		if unix.Statfs(m.target, &st) == nil {
			info.Total = st.Blocks * uint64(st.Bsize)
			info.Used = (st.Blocks - st.Bfree) * uint64(st.Bsize)
		}
		const devices = "/sys/dev/block"
		if link, err := os.Readlink(filepath.Join(devices, m.device)); err == nil {
			info.Disk = append(info.Disk, diskOf(filepath.Join(devices, link)))
		}
		all = append(all, info)
	}
	return all, nil
}
