package kmod

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// The shapes are those of Debian's 6.1 and 6.12 cloud kernels, shortened by hand.
var debian = fstest.MapFS{
	"modules.dep": {Data: []byte(`kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/lib/libcrc32c.ko:
kernel/crypto/crc32c-intel.ko:
kernel/net/nft-odd.ko: kernel/net/gone.ko
kernel/a.ko: kernel/b.ko
kernel/b.ko: kernel/a.ko
../../escape.ko:
`)},
	"modules.builtin":         {Data: []byte("kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c_generic.ko\n")},
	"modules.builtin.modinfo": {Data: []byte("fuse.license=GPL\x00fuse.alias=fs-fuseblk\x00fuse.alias=char-*\x00")},
	"modules.softdep":         {Data: []byte("# comment\nsoftdep libcrc32c pre: crypto-crc32c nowhere post: failover\nsoftdep cifs gcm\n")},
	"modules.alias":           {Data: []byte("alias crypto_crc32c crc32c_intel\nalias virtio:d00000001v* virtio_net\nalias pci:v00001AF4d0000100[0-9]sv* virtio_ring\n")},
}

func names(plan []Module) string {
	var n []string
	for _, m := range plan {
		n = append(n, m.Name)
	}
	return strings.Join(n, " ")
}

func TestResolve(t *testing.T) {
	x, err := Read(debian, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		ask     []string
		want    string
		missing string
	}{
		{"closure in order", []string{"virtio-net"}, "virtio virtio_ring failover net_failover virtio_net", ""},
		{"each once", []string{"virtio_ring", "virtio", "virtio_ring"}, "virtio virtio_ring", ""},
		{"built in", []string{"ext4", "fuse", "fs-fuseblk"}, "", ""},
		{"soft by alias", []string{"libcrc32c"}, "crc32c_intel libcrc32c failover", ""},
		{"unknown goes on", []string{"nope", "virtio"}, "virtio", "nope"},
		{"need is missing", []string{"nft_odd"}, "nft_odd", "gone"},
		{"cycle ends", []string{"a"}, "b a", ""},
		{"path out of the folder", []string{"escape"}, "", "escape"},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan, err := x.Resolve(c.ask)
			if got := names(plan); got != c.want {
				t.Errorf("plan %q, want %q", got, c.want)
			}
			var m *MissingError
			if errors.As(err, &m) != (c.missing != "") || (m != nil && m.Name != c.missing) {
				t.Errorf("error %v, want missing %q", err, c.missing)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v is not fs.ErrNotExist", err)
			}
		})
	}
}

func TestReadNeedsOnlyDep(t *testing.T) {
	if _, err := Read(fstest.MapFS{}, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
	if _, err := Read(fstest.MapFS{"modules.dep": {Data: []byte("a.ko:\n")}}, true); err != nil {
		t.Error(err)
	}
}

// A pruned index must plan as the whole one does: the guest reads what the host wrote.
func TestPrunePlansAlike(t *testing.T) {
	x, err := Read(debian, true)
	if err != nil {
		t.Fatal(err)
	}
	ask := []string{"virtio_net", "libcrc32c", "fuse"}
	plan, err := x.Resolve(ask)
	if err != nil {
		t.Fatal(err)
	}
	dep, soft, al := x.Prune(plan)
	y, err := Read(fstest.MapFS{"modules.dep": {Data: []byte(dep)}, "modules.softdep": {Data: []byte(soft)},
		"modules.alias": {Data: []byte(al)}, "modules.builtin": {Data: []byte(x.BuiltinList())}}, true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := y.Resolve(ask)
	if err != nil || names(again) != names(plan) {
		t.Errorf("pruned plan %q (%v), want %q", names(again), err, names(plan))
	}
	if got := y.Match("virtio:d00000001v00001AF4"); !slices.Equal(got, []string{"virtio_net"}) {
		t.Errorf("pruned aliases match %v", got)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"virtio:d00000001v*", "virtio:d00000001v00001AF4", true},
		{"virtio:d00000001v*", "virtio:d00000002v00001AF4", false},
		{"pci:v*d0000100[0-9]sv*", "pci:v00001AF4d00001004sv00001AF4", true},
		{"pci:v*d0000100[!0-9]sv*", "pci:v00001AF4d00001004sv00001AF4", false},
		{"dmi*:pn*Board*:", "dmi:svnA:pnX/Board 3:", true},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"[", "[", true},
		{"[]", "]", false},
		{"a*b*c", "axxbyybzzc", true},
		{"a*b*c", "axxbyybzz", false},
	} {
		if got := match(c.pattern, c.s); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func TestNameAndCompression(t *testing.T) {
	for _, c := range [][3]string{
		{"kernel/a/nf-tables.ko.xz", "nf_tables", "xz"},
		{"virtio.ko", "virtio", ""},
		{"x.ko.zst", "x", "zst"},
		{"x.ko.gz", "x", "gz"},
		{".ko", ".ko", ""},
	} {
		if Name(c[0]) != c[1] || Compression(c[0]) != c[2] {
			t.Errorf("%s: %s %s", c[0], Name(c[0]), Compression(c[0]))
		}
	}
}

// Whatever the files say: every plan ends, holds each module once, and each after its needs unless they go in circles.
func FuzzIndex(f *testing.F) {
	for _, n := range []string{"modules.dep", "modules.softdep", "modules.alias", "modules.builtin"} {
		f.Add(debian["modules.dep"].Data, debian[n].Data, debian[n].Data, debian[n].Data, "virtio:d00000001v1")
	}
	f.Fuzz(func(t *testing.T, dep, soft, al, builtin []byte, modalias string) {
		x, err := Read(fstest.MapFS{"modules.dep": {Data: dep}, "modules.softdep": {Data: soft},
			"modules.alias": {Data: al}, "modules.builtin.modinfo": {Data: builtin}}, true)
		if err != nil {
			return
		}
		x.Match(modalias)
		plan, _ := x.Resolve(x.Names())
		at := map[string]int{}
		for i, m := range plan {
			if _, twice := at[m.Name]; twice {
				t.Fatalf("%s twice", m.Name)
			}
			if !fs.ValidPath(m.Path) {
				t.Fatalf("path %q leads out", m.Path)
			}
			at[m.Name] = i
		}
		if len(plan) != len(x.Names()) {
			t.Fatalf("plan has %d of %d modules", len(plan), len(x.Names()))
		}
	})
}
