package sockdiag

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// Barrier waits until every packet that was inside the network stack when it was called has landed in a queue that Busy
// can see, or has left. Releasing a packet socket bound to all protocols goes through synchronize_net
// (packet_release, net/packet/af_packet.c); without CONFIG_PACKET membarrier's global command waits for the same grace
// period (kernel/sched/membarrier.c). Packets that a processor has put off are seen by Busy as softnet.
func (ins *Inspector) Barrier() error {
	if ins.options.Expedite {
		defer expedite()()
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

// expediting counts the barriers under way: the last one puts the kernel's setting back. The mutex is held only while the
// setting is changed.
var expediting struct {
	sync.Mutex
	barriers int
	before   []byte
}

// expedite changes a setting for speed only, so what fails here fails in silence.
func expedite() (restore func()) {
	const setting = "/sys/kernel/rcu_expedited"
	e := &expediting
	e.Lock()
	defer e.Unlock()
	if e.barriers++; e.barriers == 1 {
		if before, err := os.ReadFile(setting); err == nil && os.WriteFile(setting, []byte("1"), 0) == nil {
			e.before = before
		}
	}
	return func() {
		e.Lock()
		defer e.Unlock()
		if e.barriers--; e.barriers == 0 && e.before != nil {
			_ = os.WriteFile(setting, e.before, 0)
			e.before = nil
		}
	}
}
