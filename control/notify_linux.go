package control

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// notifyTimeout bounds each step of a notification: a host that does not listen must not hold up a guest.
const notifyTimeout = 5 * time.Second

// Ready tells whoever started this guest that all its services are ready.
const Ready = "READY=1\nSTATUS=all services are ready"

// Notify sends lines of sd_notify(3), such as those of Ready or EXIT_STATUS=number (which systemd-vmspawn takes for its
// own), to the address of the configuration's control.notify. Addresses are those of NOTIFY_SOCKET, and one more:
//
//	vsock-stream:2:1234     CID and port; also vsock-seqpacket and vsock-dgram, or vsock for what there is of these
//	/run/host/notify, @name a unix datagram socket, for a guest that is a container
//	serial:NAME             the virtio-serial port of that name, for QEMU where the host has no vhost-vsock; a notification
//	                        ends with an empty line there
//
// It takes no more than 10 s per kind of socket tried.
func Notify(address, state string) error {
	err := notify(address, state)
	if err != nil {
		err = fmt.Errorf("notify %s: %w", address, err)
	}
	return err
}

func notify(address, state string) error {
	kind, rest, _ := strings.Cut(address, ":")
	switch {
	case kind == "serial":
		return notifySerial(rest, state)
	case strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@"):
		return notifySocket(unix.AF_UNIX, unix.SOCK_DGRAM, &unix.SockaddrUnix{Name: address}, state)
	}
	to, err := parseVM(rest)
	if err != nil {
		return err
	}
	switch kind {
	case "vsock-stream":
		return notifySocket(unix.AF_VSOCK, unix.SOCK_STREAM, to, state)
	case "vsock-seqpacket":
		return notifySocket(unix.AF_VSOCK, unix.SOCK_SEQPACKET, to, state)
	case "vsock-dgram":
		return notifySocket(unix.AF_VSOCK, unix.SOCK_DGRAM, to, state)
	case "vsock":
		for _, kind := range [...]int{unix.SOCK_SEQPACKET, unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			if err = notifySocket(unix.AF_VSOCK, kind, to, state); err == nil {
				return nil
			}
		}
		return err
	}
	return errors.New("want vsock:CID:PORT, vsock-stream:CID:PORT, /path, @name or serial:NAME")
}

func parseVM(text string) (*unix.SockaddrVM, error) {
	cid, port, _ := strings.Cut(text, ":")
	c, err := strconv.ParseUint(cid, 10, 32)
	if err == nil {
		var p uint64
		p, err = strconv.ParseUint(port, 10, 32)
		return &unix.SockaddrVM{CID: uint32(c), Port: uint32(p)}, err
	}
	return nil, err
}

// notifySocket uses a blocking socket with time-outs: connecting by vsock ends after 2 s by itself
// (VSOCK_DEFAULT_CONNECT_TIMEOUT, net/vmw_vsock/af_vsock.c, Linux 6.12).
func notifySocket(family, kind int, to unix.Sockaddr, state string) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(notifyTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Connect(fd, to); err != nil {
		return os.NewSyscallError("connect", err)
	}
	_, err = unix.Write(fd, []byte(state+"\n"))
	return os.NewSyscallError("write", err)
}

func notifySerial(name, state string) error {
	path, err := FindSerial(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// While no host has the port open, it takes nothing (port_fops_write, drivers/char/virtio_console.c, Linux 6.12).
	if err := f.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return err
	}
	_, err = f.WriteString(state + "\n\n")
	return err
}
