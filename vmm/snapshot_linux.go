package vmm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// unlimited is a migration bandwidth that no disk reaches, in bytes a second. QEMU's default of 128 MiB/s is
// meant for a network that others use too.
const unlimited = 1 << 50

// Snapshot stops the guest and writes it to path, complete or not at all: the file is renamed into its
// place when QEMU has said that all is written. The guest stays stopped, after an error too; Cont lets it go
// on, Close ends it. With MapMemory the guest's memory goes to path + ".memory".
func (vm *VM) Snapshot(ctx context.Context, path string) error {
	if err := vm.snapshot(ctx, path); err != nil {
		return fmt.Errorf("snapshot %s: %w", path, vm.blame(err))
	}
	return nil
}

func (vm *VM) snapshot(ctx context.Context, path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already if all went well
	defer f.Close()
	if err := vm.Stop(ctx); err != nil {
		return err
	}
	if err := vm.setMigration(ctx, vm.memory != ""); err != nil {
		return err
	}
	if err := vm.migrate(ctx, f); err != nil {
		return err
	}
	if err := vm.saveMemory(path + memorySuffix); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// saveMemory copies the mapped memory; without it there must be no such file, or a restore would map it. A
// clone's memory is private: its snapshot has it in the stream, as any other.
func (vm *VM) saveMemory(path string) error {
	if vm.memory != "" {
		return copySparse(vm.memory, path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// setMigration tells QEMU how snapshots are written and read; both sides must agree on whether memory that
// is shared with a file is left out of the stream.
func (vm *VM) setMigration(ctx context.Context, leaveOut bool) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	caps := map[string]any{"capabilities": []capability{{"events", true}, {"x-ignore-shared", leaveOut}}}
	if err := vm.QMP(ctx, "migrate-set-capabilities", caps, nil); err != nil {
		return err
	}
	// QEMU would announce the NIC's address by itself as soon as a clone runs, long before the clone has
	// been adjusted: its twin's MAC, told to everyone. The guest announces when its gate is open.
	return vm.QMP(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(unlimited), "announce-rounds": 0}, nil)
}

// migrate writes the machine to f. QEMU writes to the descriptor itself: no pipe, no cat, no shell.
func (vm *VM) migrate(ctx context.Context, f *os.File) error {
	if err := vm.handOver(ctx, f); err != nil {
		return err
	}
	vm.forgetMigration()
	if err := vm.QMP(ctx, "migrate", map[string]any{"uri": "fd:snapshot"}, nil); err != nil {
		return err
	}
	err := vm.awaitMigration(ctx)
	if ctx.Err() != nil {
		// The descriptor is QEMU's until it has given up; the context of the caller is over.
		cancelCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), quitTime)
		defer cancel()
		return errors.Join(err, vm.QMP(cancelCtx, "migrate_cancel", nil, nil), ignoreCancelled(vm.awaitMigration(cancelCtx)))
	}
	return err
}

// restore reads the snapshot and lets the guest run: the snapshot of a stopped guest is a stopped guest,
// whatever -S says.
func (vm *VM) restore(ctx context.Context) error {
	f, err := os.Open(vm.c.Incoming)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := vm.setMigration(ctx, vm.mapped); err != nil {
		return err
	}
	if err := vm.handOver(ctx, f); err != nil {
		return err
	}
	if err := vm.QMP(ctx, "migrate-incoming", map[string]any{"uri": "fd:snapshot"}, nil); err != nil {
		return err
	}
	if err := vm.awaitMigration(ctx); err != nil {
		return fmt.Errorf("restore %s: %w", vm.c.Incoming, err)
	}
	if vm.c.Paused {
		return nil
	}
	return vm.Cont(ctx)
}

// handOver gives QEMU a descriptor under the name "snapshot" (getfd with SCM_RIGHTS).
func (vm *VM) handOver(ctx context.Context, f *os.File) error {
	return vm.qmp.doWithFile(ctx, f, "getfd", map[string]any{"fdname": "snapshot"})
}

var errCancelled = errors.New("migration cancelled")

func ignoreCancelled(err error) error {
	if errors.Is(err, errCancelled) {
		return nil
	}
	return err
}

func (vm *VM) forgetMigration() {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.migration = ""
}

// awaitMigration waits for the events of a migration that has begun.
func (vm *VM) awaitMigration(ctx context.Context) error {
	for {
		vm.mu.Lock()
		status, changed := vm.migration, vm.changed
		vm.mu.Unlock()
		switch status {
		case "completed":
			return nil
		case "failed":
			return vm.migrationError(ctx)
		case "cancelled":
			return errCancelled
		}
		select {
		case <-changed:
		case <-vm.qmp.done:
			return vm.qmp.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// migrationError asks QEMU why.
func (vm *VM) migrationError(ctx context.Context) error {
	var info struct {
		Desc string `json:"error-desc"`
	}
	if err := vm.QMP(ctx, "query-migrate", nil, &info); err != nil {
		return fmt.Errorf("migration failed: %w", err)
	}
	return fmt.Errorf("migration failed: %s", info.Desc)
}

// doWithFile executes a command with a descriptor beside it.
func (q *qmp) doWithFile(ctx context.Context, f *os.File, command string, args any) error {
	rights := unix.UnixRights(int(f.Fd()))
	return q.exchange(ctx, command, args, nil, func(line []byte) error {
		_, _, err := q.conn.(*net.UnixConn).WriteMsgUnix(line, rights, nil)
		return err
	})
}
