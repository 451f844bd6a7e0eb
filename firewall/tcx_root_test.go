//go:build root

package firewall

import (
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tcx is what the tc rung could use since Linux 6.6 in place of a clsact qdisc: BPF_TCX_INGRESS and _EGRESS,
// include/uapi/linux/bpf.h. These are here to judge whether it should; doc.go has the verdict.
var tcxTypes = [2]uint32{46, 47}

const beforeOthers = 1 << 3 // BPF_F_BEFORE

func tcxAttach(v *valve, index int32) error {
	for i, p := range v.progs {
		attr := bpfAttach{target: uint32(index), prog: uint32(p.fd), attachType: tcxTypes[i], flags: beforeOthers}
		if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
			return describe(err, "attach by tcx")
		}
	}
	return nil
}

func tcxDetach(v *valve, index int32) error {
	var failed error
	for i, p := range v.progs {
		attr := bpfAttach{target: uint32(index), prog: uint32(p.fd), attachType: tcxTypes[i]}
		_, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		failed = errors.Join(failed, err)
	}
	return failed
}

// BenchmarkLink attaches both programs to one link and takes them off again, by clsact and by tcx.
func BenchmarkLink(b *testing.B) {
	setUp := func(b *testing.B) (*host, *tc, link) {
		a, _, g := pair(b, Options{Mechanism: "tc"})
		c := g.mech.(*tc)
		links, err := c.links()
		if err != nil {
			b.Fatal(err)
		}
		return a, c, links[0]
	}
	b.Run("clsact", func(b *testing.B) {
		_, c, l := setUp(b)
		for b.Loop() {
			if err := errors.Join(c.attach(l), c.remove([]link{l})); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tcx", func(b *testing.B) {
		a, c, l := setUp(b)
		a.must(b, func() error {
			for b.Loop() {
				if err := errors.Join(tcxAttach(c.valve, l.index), tcxDetach(c.valve, l.index)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// Somebody's tcx program that ends with TCX_PASS keeps tc's classifiers from being asked: the hole that
// doc.go tells of, and that nftables in front of tc closes for what is IP or ARP.
func TestTcxGoesBeforeTc(t *testing.T) {
	for _, c := range []struct {
		mechanism string
		passes    bool
	}{{"tc", true}, {"nftables+tc", false}} {
		t.Run(c.mechanism, func(t *testing.T) {
			a, b, g := pair(t, Options{Mechanism: c.mechanism})
			permanentNeighbours(t, a, b)
			w := newWays(t, a, b)
			set(t, g, Shut)
			var missing error // a skip must not end the host's thread
			a.must(t, func() error {
				code := &assembler{}
				code.emit(opMovImm, r0, 0, 0, 0) // TCX_PASS
				code.emit(opExit, 0, 0, 0, 0)
				v, err := loadBare(code)
				if err != nil {
					return err
				}
				t.Cleanup(func() { unix.Close(v.progs[0].fd) })
				index := int32(interfaceIndex("to-b"))
				if missing = tcxAttach(v, index); missing != nil {
					return nil
				}
				t.Cleanup(func() { _ = a.run(func() error { return tcxDetach(v, index) }) })
				return nil
			})
			if missing != nil {
				t.Skipf("kernel without tcx (Linux 6.6): %v", missing)
			}
			if free := w.free(t); (free > 0) != c.passes {
				t.Errorf("%d of 4 ways are free", free)
			}
		})
	}
}

// loadBare loads one classifier as both programs of a valve.
func loadBare(a *assembler) (*valve, error) {
	code, err := a.bytes()
	if err != nil {
		return nil, err
	}
	license := []byte("Apache-2.0\x00")
	attr := bpfProgLoad{progType: bpfTypeSchedCls, insnCount: uint32(len(code) / 8), insns: unsafe.Pointer(&code[0]), license: unsafe.Pointer(&license[0])}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, err
	}
	return &valve{progs: [2]program{{fd: fd}, {fd: fd}}}, nil
}
