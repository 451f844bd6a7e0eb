package quiesce

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// seams are the steps behind which a kernel interface is, with the errors that it can answer.
var seams = []struct {
	what   string
	steps  []string
	errnos []syscall.Errno
}{
	// nfnetlink answers a batch (net/netfilter/nfnetlink.c, nf_tables_api.c); sendmsg and recvmsg of netlink.
	{"nft", []string{"gate hold", "gate shut", "gate open"}, []syscall.Errno{syscall.EPERM, syscall.EBUSY, syscall.ENOENT, syscall.EEXIST, syscall.EINVAL,
		syscall.EOPNOTSUPP, syscall.ENOMEM, syscall.ENOBUFS, syscall.ERANGE, syscall.EAGAIN, syscall.EINTR, syscall.EMFILE, syscall.ENOSPC, syscall.ELOOP}},
	// inet_diag, unix_diag, packet_diag, and SOCK_DESTROY.
	{"sock_diag", []string{"busy", "barrier", "destroy", "sever"}, []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOENT, syscall.EINVAL, syscall.EOPNOTSUPP,
		syscall.ENOMEM, syscall.ENOBUFS, syscall.EINTR, syscall.EMSGSIZE, syscall.ESTALE, syscall.EBUSY, syscall.EMFILE}},
	// writes and reads of cgroup.freeze and cgroup.events; FIFREEZE and FITHAW.
	{"freezer", []string{"settle", "freeze", "thaw", "fsfreeze", "fsthaw"}, []syscall.Errno{syscall.EPERM, syscall.ENODEV, syscall.ENOENT, syscall.EINVAL, syscall.EBUSY,
		syscall.EIO, syscall.ENOMEM, syscall.EINTR, syscall.EROFS, syscall.EOPNOTSUPP, syscall.ETIMEDOUT}},
	// /dev/fuse of a connection that was aborted, and a kernel's own device.
	{"FUSE", []string{"bump"}, []syscall.Errno{syscall.ENODEV, syscall.ENOTCONN, syscall.EIO, syscall.EINTR, syscall.ENOMEM, syscall.EBADF, syscall.EPERM, syscall.EACCES, syscall.EINVAL}},
	// The random pool, clock and names.
	{"kernel", []string{"reseed", "identify"}, []syscall.Errno{syscall.EPERM, syscall.ENODATA, syscall.ENOTTY, syscall.EINVAL, syscall.EFAULT, syscall.EROFS, syscall.ENOSPC, syscall.EMFILE}},
}

// Each error at each seam: a quiesce names it and is undone; an adjust names it and holds, shut; and then the machine can be
// used again.
func TestEveryErrno(t *testing.T) {
	cases := 0
	for _, s := range seams {
		for _, step := range s.steps {
			for _, errno := range s.errnos {
				cases++
				// Thrice, because a thaw is tried that often.
				t.Run(fmt.Sprintf("%s/%s/%s", s.what, step, errno), func(t *testing.T) { testErrno(t, step, []error{errno, errno, errno}) })
			}
		}
	}
	t.Logf("%d cases", cases)
}

func testErrno(t *testing.T, step string, errs []error) {
	run(t, func(f *fake, o *Options) {
		if step == "destroy" {
			f.busy, o.Leftovers = []int{2}, Destroy
		}
		f.errs[step] = errs
	}, func(t *testing.T, f *fake, m *Machine) {
		r, err := m.Quiesce(t.Context(), QuiesceOptions{Timeout: slowLook})
		named := func(r *Report) bool { return strings.Contains(r.Reason, errs[0].Error()) }
		if err != nil && (!errors.Is(err, errs[0]) || !named(r)) {
			t.Errorf("quiesce: %v, report %+v", err, r)
		}
		if err == nil { // a step of an adjust, or of the way back
			f.clone("B")
			reach(t, m, Held)
			if r := m.lastReport(); f.gate != GateShut || !named(r) || r.Outcome != "held" {
				t.Errorf("gate %s, report %+v", f.gate, r)
			}
		} else if f.gate != GateOpen || f.frozen || m.State() != Running {
			t.Errorf("after the quiesce failed: gate %s, frozen %v, %s", f.gate, f.frozen, m.State())
		}
		f.with(func() { f.errs = map[string][]error{}; f.busy = nil })
		if _, err := m.Release(t.Context()); err != nil || f.gate != GateOpen || f.frozen {
			t.Errorf("release: %v, gate %s", err, f.gate)
		}
		if _, err := m.Quiesce(t.Context(), QuiesceOptions{}); err != nil {
			t.Errorf("a quiesce afterwards: %v", err)
		}
	})
}
