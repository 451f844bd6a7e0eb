package vmm

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// flushTime bounds the wait for QEMU's user-mode network; a peer that does not read must not keep a
// snapshot from being taken for ever.
const flushTime = 10 * time.Second

// flushUserNetwork waits until QEMU's user-mode network has passed on everything that the guest has sent:
// it acknowledges to the guest before the real peer has read, so the guest's own queues are empty while
// bytes are still here, and they would be lost when QEMU ends.
func (vm *VM) flushUserNetwork(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	for {
		info, err := vm.humanMonitor(ctx, "info usernet")
		if err != nil {
			return err
		}
		held := unsentBytes(info)
		if held == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("user-mode network: %d bytes that the guest has sent were not read by their peers within %v; let them read, or end them", held, flushTime)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// dropUserNetwork takes the user-mode network away from a machine that is about to be snapshot: it would write its
// own state into the snapshot, its connections among them, and then a clone could have no other network. The hub keeps
// the guest's link up meanwhile.
func (vm *VM) dropUserNetwork(ctx context.Context) error {
	if !vm.c.hub || vm.c.Tap != "" {
		return nil
	}
	return vm.QMP(ctx, "netdev_del", map[string]string{"id": userNetwork}, nil)
}

func (vm *VM) humanMonitor(ctx context.Context, line string) (string, error) {
	var text string
	err := vm.QMP(ctx, "human-monitor-command", map[string]string{"command-line": line}, &text)
	return text, err
}

// unsentBytes sums the last column of "info usernet" over connections; see parseForwards for its form.
// There SendQ is what waits to be written to the host's socket.
func unsentBytes(info string) int {
	sum := 0
	for line := range strings.Lines(info) {
		f := strings.Fields(line)
		if len(f) < 8 || !strings.HasPrefix(f[0], "TCP[") || f[0] == "TCP[HOST_FORWARD]" {
			continue
		}
		if n, err := strconv.Atoi(f[len(f)-1]); err == nil {
			sum += n
		}
	}
	return sum
}
