package control

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/json"
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
	if err := decodeArgs(args, &empty{}); err != nil {
		return nil, err
	}
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETLINK, syscall.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	addresses, err := syscall.NetlinkRIB(syscall.RTM_GETADDR, syscall.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return parseInterfaces(rib, addresses)
}

// parseInterfaces reads the kernel's dumps of links and addresses (rtnetlink(7)).
func parseInterfaces(links, addresses []byte) ([]interfaceInfo, error) {
	byIndex := map[int32][]ipAddress{}
	err := eachMessage(addresses, syscall.RTM_NEWADDR, syscall.SizeofIfAddrmsg, func(body []byte, attributes []syscall.NetlinkRouteAttr) {
		// struct ifaddrmsg: family, prefix length, flags, scope (a byte each), index (u32).
		index := int32(binary.NativeEndian.Uint32(body[4:]))
		if a, ok := toAddress(attributes, int(body[1])); ok {
			byIndex[index] = append(byIndex[index], a)
		}
	})
	if err != nil {
		return nil, err
	}
	all := []interfaceInfo{}
	err = eachMessage(links, syscall.RTM_NEWLINK, syscall.SizeofIfInfomsg, func(body []byte, attributes []syscall.NetlinkRouteAttr) {
		// struct ifinfomsg: family, pad (a byte each), type (u16), index (i32), flags (u32), change (u32).
		info := interfaceInfo{Addresses: byIndex[int32(binary.NativeEndian.Uint32(body[4:]))]}
		for _, a := range attributes {
			switch a.Attr.Type {
			case syscall.IFLA_IFNAME:
				info.Name = strings.TrimRight(string(a.Value), "\x00")
			case syscall.IFLA_ADDRESS:
				info.MAC = hardwareAddress(a.Value)
			}
		}
		info.Counters = counters("/sys/class/net", info.Name)
		all = append(all, info)
	})
	return all, err
}

// eachMessage calls f for the messages of one kind, each with its fixed part of the size given.
func eachMessage(dump []byte, kind uint16, size int, f func(body []byte, attributes []syscall.NetlinkRouteAttr)) error {
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return err
	}
	for i := range messages {
		if messages[i].Header.Type != kind || len(messages[i].Data) < size {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&messages[i])
		if err != nil {
			return err
		}
		f(messages[i].Data, attributes)
	}
	return nil
}

// toAddress takes the interface's own address: IFA_LOCAL, and for IPv6 IFA_ADDRESS.
func toAddress(attributes []syscall.NetlinkRouteAttr, prefix int) (ipAddress, bool) {
	var ip netip.Addr
	for _, a := range attributes {
		if a.Attr.Type == syscall.IFA_LOCAL || a.Attr.Type == syscall.IFA_ADDRESS && !ip.IsValid() {
			if v, ok := netip.AddrFromSlice(a.Value); ok {
				ip = v
			}
		}
	}
	kind := "ipv6"
	if ip.Is4() {
		kind = "ipv4"
	}
	return ipAddress{kind, ip.String(), prefix}, ip.IsValid()
}

func hardwareAddress(a []byte) string {
	var b strings.Builder
	for i, v := range a {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02x", v)
	}
	return b.String()
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
		const devices = "/sys/dev/block"
		if link, err := os.Readlink(filepath.Join(devices, m.device)); err == nil {
			info.Disk = append(info.Disk, diskOf(filepath.Join(devices, link)))
		}
		all = append(all, info)
	}
	return all, decodeArgs(args, &empty{})
}
