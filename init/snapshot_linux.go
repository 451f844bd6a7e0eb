package main

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"rouse/internal/rcu"
	"rouse/rootfs"
)

// What is done to file systems and memory for a snapshot.

// filesystemPart syncs, and freezes what the configuration names. An image that runs from memory has nothing to freeze.
type filesystemPart struct {
	g       *guest
	freezer rootfs.Freezer
}

// newFilesystems also thaws what is frozen already: a machine that boots has no snapshot under way, and who froze
// it is gone. Best effort: what cannot be thawed is frozen for its own reason.
func newFilesystems(g *guest) *filesystemPart {
	p := &filesystemPart{g: g, freezer: rootfs.Freezer{Want: g.cfg.Quiesce.Freeze}}
	_ = p.freezer.ThawAll()
	return p
}

// atRest is the detail of the phase sync.
type atRest struct {
	rootfs.Frozen
	Trimmed uint64 `json:"trimmed-bytes,omitempty"`
}

// Freeze makes the memory as small as the configuration wants it, then nothing may be written any more. That is best effort:
// a snapshot that is larger than it could be is as safe.
func (p *filesystemPart) Freeze(ctx context.Context) (int, any, error) {
	var done atRest
	var err error
	q := &p.g.cfg.Quiesce
	if q.Trim { // before the sync: the devices may be told with the rest
		if done.Trimmed, err = p.freezer.Trim(); err != nil {
			p.g.flow.Warn("trim: " + err.Error())
		}
	}
	if err := rootfs.Sync(ctx); err != nil {
		return 0, nil, err
	}
	// After the sync: only clean pages can be dropped. Before compacting, which has less to move then.
	p.tell(q.DropCaches, "drop_caches")
	p.tell(q.Compact, "compact_memory")
	restore := rcu.Expedite() // freezing a file system waits for several grace periods (freeze_super, fs/super.c, v6.12)
	done.Frozen, err = p.freezer.Freeze(ctx)
	restore()
	p.lock()
	return max(1, len(done.Targets)), done, err
}

func (p *filesystemPart) tell(wanted bool, knob string) {
	if !wanted {
		return
	}
	if err := os.WriteFile("/proc/sys/vm/"+knob, []byte("1"), 0); err != nil {
		p.g.flow.Warn(err.Error())
	}
}

// lock keeps what of this process is in memory there, so that nothing of it has to be read from a disk after the resume.
// Without MCL_ONFAULT the kernel would fill the Go runtime's reserved memory too.
func (p *filesystemPart) lock() {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_ONFAULT); err != nil {
		p.g.flow.Warn("lock memory: " + err.Error())
	}
}

func (p *filesystemPart) Thaw(context.Context) error { return p.freezer.Thaw() }

// pageFaults are this process's so far.
func pageFaults() (minor, major int64) {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail for oneself
	return u.Minflt, u.Majflt
}
