package sockdiag

import (
	"errors"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/rcu"
)

// Barrier waits until every packet that was inside the network stack when it was called has landed in a queue that Busy
// can see, or has left. Releasing a packet socket bound to all protocols goes through synchronize_net
// (packet_release, net/packet/af_packet.c); without CONFIG_PACKET membarrier's global command waits for the same grace
// period (kernel/sched/membarrier.c). Packets that a processor has put off are seen by Busy as softnet.
func (ins *Inspector) Barrier() error {
	if ins.options.Expedite {
		defer rcu.Expedite()()
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return membarrier()
	}
	if err != nil {
		return fmt.Errorf("socket packet: %w", err)
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close packet socket: %w", err)
	}
	return nil
}

func membarrier() error {
	const global = 1 // MEMBARRIER_CMD_GLOBAL, include/uapi/linux/membarrier.h
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		return fmt.Errorf("membarrier: %w", errno)
	}
	return nil
}
