package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

type ipAddress struct {
	Type    string `json:"ip-address-type"` // ipv4 or ipv6
	Address string `json:"ip-address"`
	Prefix  int    `json:"prefix"`
}

type interfaceInfo struct {
	Name      string            `json:"name"`
	MAC       string            `json:"hardware-address,omitempty"`
	Addresses []ipAddress       `json:"ip-addresses,omitempty"`
	Counters  map[string]uint64 `json:"statistics,omitempty"`
}

func getInterfaces(_ context.Context, _ *Server, args json.RawMessage) (any, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	all := []interfaceInfo{}
	for _, link := range links {
		info := interfaceInfo{Name: link.Name, MAC: link.HardwareAddr.String(), Counters: counters("/sys/class/net", link.Name)}
		if link.Flags&net.FlagLoopback != 0 {
			info.MAC = "00:00:00:00:00:00" // as the guest agent has it
		}
		addresses, err := link.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", link.Name, err)
		}
		for _, a := range addresses {
			if a, ok := a.(*net.IPNet); ok {
				info.Addresses = append(info.Addresses, toAddress(a))
			}
		}
		all = append(all, info)
	}
	return all, decodeArgs(args, &empty{})
}

func toAddress(a *net.IPNet) ipAddress {
	kind := "ipv6"
	if a.IP.To4() != nil {
		kind = "ipv4"
	}
	ones, _ := a.Mask.Size()
	return ipAddress{kind, a.IP.String(), ones}
}

// counterFiles maps the protocol's names to the kernel's (Documentation/ABI/testing/sysfs-class-net-statistics).
var counterFiles = map[string]string{
	"rx-bytes": "rx_bytes", "rx-packets": "rx_packets", "rx-errs": "rx_errors", "rx-dropped": "rx_dropped",
	"tx-bytes": "tx_bytes", "tx-packets": "tx_packets", "tx-errs": "tx_errors", "tx-dropped": "tx_dropped",
}

// counters is nil unless all are there: clients expect all or none.
func counters(class, link string) map[string]uint64 {
	all := map[string]uint64{}
	for name, file := range counterFiles {
		data, err := os.ReadFile(filepath.Join(class, link, "statistics", file))
		if err != nil {
			return nil
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
		if err != nil {
			return nil
		}
		all[name] = n
	}
	return all
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

func getFSInfo(_ context.Context, _ *Server, args json.RawMessage) (any, error) {
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
		if path, err := filepath.EvalSymlinks("/sys/dev/block/" + m.device); err == nil {
			info.Disk = append(info.Disk, diskOf(path))
		}
		all = append(all, info)
	}
	return all, decodeArgs(args, &empty{})
}
