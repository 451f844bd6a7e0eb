package rootfs

import (
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/rootfs/rtnl"
)

// MMDSAddress is where Firecracker's microVM metadata service answers (its docs/mmds). It never leaves the VMM, so that the gate may
// let it through while it is shut: PID 1 asks before services run.
var MMDSAddress = netip.AddrFrom4([4]byte{169, 254, 169, 254})

// mmdsTimeout is for each step of a question: the VMM answers by itself, and at once.
const mmdsTimeout = 2 * time.Second

// MMDS asks Firecracker's metadata service for what is at path, such as "/rouse", as JSON. It speaks version 2, with a token, and
// version 1 to a service that knows no tokens. No such path is fs.ErrNotExist. i is the NIC that the service is configured for.
// What a snapshot's guest was told is not what its copies are: ask again after each resume.
func MMDS(i *Interface, path string) ([]byte, error) {
	c, err := rtnl.Dial(0)
	if err != nil {
		return nil, fmt.Errorf("MMDS: %w", err)
	}
	defer c.Close()
	l, err := waitLink(c, i, 0)
	if err != nil {
		return nil, fmt.Errorf("MMDS: %w: %w", fs.ErrNotExist, err)
	}
	var b []byte
	if err = c.SetLink(l.Index, rtnl.LinkChange{Up: true}); err == nil {
		_, err = settledLinks(c) // or the first question is lost, and the next one asked a second later
	}
	if err == nil {
		b, err = mmds(c, l, path)
	}
	if err != nil {
		return nil, fmt.Errorf("MMDS %s: %w", path, err)
	}
	return b, nil
}

func mmds(c *rtnl.Conn, l *rtnl.Link, path string) ([]byte, error) {
	list, err := c.Addresses(l.Index)
	if err != nil {
		return nil, err
	}
	// A link without an IPv4 address borrows one of the service's own network.
	has := false
	for n := range list {
		has = has || list[n].Prefix.Addr().Is4()
	}
	if !has {
		own := netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254, 169, 253}), 30)
		if err := c.AddAddress(l.Index, own, unix.IFA_F_PERMANENT); err != nil {
			return nil, err
		}
		defer c.RemoveAddress(l.Index, own)
	}
	headers := "Accept: application/json\r\n"
	status, body, err := mmdsAsk(l.Name, "PUT /latest/api/token", "X-metadata-token-ttl-seconds: 60\r\n")
	if err == nil {
		if status == 200 && !strings.ContainsAny(string(body), "\r\n") {
			headers += "X-metadata-token: " + string(body) + "\r\n"
		}
		status, body, err = mmdsAsk(l.Name, "GET "+path, headers)
	}
	if err == nil && status == 404 {
		err = fs.ErrNotExist
	} else if err == nil && status != 200 {
		err = fmt.Errorf("status %d: %.100s", status, body)
	}
	return body, err
}

// mmdsAsk is one request over a connection of its own, on the link name whatever the routes say.
func mmdsAsk(name, request, headers string) (status int, body []byte, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(int64(mmdsTimeout))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait) // also of connect
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	if err = unix.BindToDevice(fd, name); err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: MMDSAddress.As4()})
	}
	if err == nil {
		_, err = unix.Write(fd, []byte(request+" HTTP/1.1\r\nHost: 169.254.169.254\r\n"+headers+"\r\n"))
	}
	var all []byte
	buf := make([]byte, 4096)
	for end := time.Now().Add(mmdsTimeout); err == nil; {
		var n int
		if n, err = unix.Read(fd, buf); err != nil {
			break
		}
		all = append(all, buf[:n]...)
		status, body, more := parseHTTP(all, n == 0)
		if !more && status == 0 || more && time.Now().After(end) {
			err = errHTTP
		} else if !more {
			return status, body, nil
		}
	}
	return 0, nil, err
}

// IsFirecracker tells by the OEM of the machine's ACPI tables (see rebootCommand) whether there may be an MMDS.
func IsFirecracker() bool {
	table, err := os.ReadFile("/sys/firmware/acpi/tables/FACP")
	return err == nil && isFirecracker(table)
}

func isFirecracker(table []byte) bool { return len(table) >= 16 && string(table[10:16]) == "FIRECK" }
