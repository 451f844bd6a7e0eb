package control

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// ServeVsock listens on a vsock port and hears the host only (CID 2). A restore resets the
// connections; the listener survives it. An error that matches unix.EAFNOSUPPORT means a kernel without
// vsock (CONFIG_VSOCKETS, module vsock).
func (s *Server) ServeVsock(ctx context.Context, port uint32) error {
	return s.serveVsock(ctx, port, unix.VMADDR_CID_HOST)
}

func (s *Server) serveVsock(ctx context.Context, port, peer uint32) error {
	l, err := listen(unix.AF_VSOCK, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})
	if err != nil {
		return fmt.Errorf("listen vsock port %d: %w", port, err)
	}
	return s.serveListener(ctx, l, func(_ *os.File, from unix.Sockaddr) error {
		vm, ok := from.(*unix.SockaddrVM)
		switch {
		case !ok:
			return fmt.Errorf("vsock: a peer without a CID: only CID %d is heard", peer)
		case vm.CID != peer:
			return fmt.Errorf("vsock peer %d: only CID %d is heard", vm.CID, peer)
		}
		return nil
	})
}
