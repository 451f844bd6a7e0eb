package rootfs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// mountinfo of a guest: root on a disk, data on a second one bound twice, an image file of the first on a loop device, an overlay
// on data, one in memory, and what every kernel has.
const freezeMounts = `21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:5 / /proc rw - proc proc rw
23 21 0:22 / /run rw - tmpfs run rw,mode=755
24 21 254:16 / /data rw - ext4 /dev/vdb rw
25 21 7:0 / /data/image rw - xfs /dev/loop0 rw
26 21 254:16 /sub /srv/with\040blank rw - ext4 /dev/vdb rw
27 21 0:40 / /merged rw - overlay overlay rw,lowerdir=/l,upperdir=/data/up,workdir=/data/work
28 21 0:41 / /memory rw - overlay overlay rw,lowerdir=/l,upperdir=/run/up,workdir=/run/work
29 21 0:42 / /lower rw - overlay overlay ro,lowerdir=/l:/m
30 21 254:32 / /cd ro - iso9660 /dev/sr0 ro
31 21 254:48 / /ro ro - ext4 /dev/vdc ro
32 21 0:43 / /host rw - virtiofs host rw
33 21 0:44 / /fuse rw - fuse.sshfs x rw
nonsense
34 21 0:45`

func TestPlanFreeze(t *testing.T) {
	tests := map[string]struct {
		want, keep []string
		plan       string
		skipped    []string
	}{
		"nothing":      {},
		"all":          {[]string{"all"}, nil, "254:0 254:16 7:0 0:43", []string{"/lower: an overlay whose", "/ro: read-only"}},
		"all but logs": {[]string{"all"}, []string{"/var/log"}, "254:16 7:0 0:43", []string{"/: rouse writes to /var/log", "/lower: an overlay", "/ro: read-only"}},
		"named":        {[]string{"/data"}, nil, "254:16", nil},
		"twice":        {[]string{"/data", "/srv/with blank", "/merged"}, nil, "254:16", nil},
		"any order":    {[]string{"/", "/data", "/data/image"}, nil, "254:0 254:16 7:0", nil},
		"in memory":    {[]string{"/run", "/memory", "/proc"}, nil, "", []string{"/proc: its data is not", "/run: its data is not", "/memory: its data is not"}},
		"elsewhere":    {[]string{"/fuse", "/cd"}, nil, "", []string{"/cd: its data", "/fuse: its data"}},
		"no mount":     {[]string{"/data/sub", "data"}, nil, "", []string{"/data/sub: not a mount point", "data: not a mount point"}},
		"keep nested":  {[]string{"/data/image", "/data"}, []string{"/data/image/log"}, "254:16", []string{"/data/image: rouse writes"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			all := parseFilesystems(freezeMounts)
			skipped := planFreeze(all, tt.want, tt.keep)
			var got []string
			for _, s := range all {
				if s.chosen {
					got = append(got, s.device)
				} else if s.reason != "" {
					skipped = append(skipped, Skip{s.targets[0], s.reason})
				}
			}
			if g := strings.Join(got, " "); g != tt.plan {
				t.Errorf("plan %s, want %s", g, tt.plan)
			}
			if len(skipped) != len(tt.skipped) {
				t.Fatalf("skipped %+v, want %q", skipped, tt.skipped)
			}
			for i, s := range skipped {
				if !strings.HasPrefix(fmt.Sprintf("%s: %s", s.Target, s.Reason), tt.skipped[i]) {
					t.Errorf("skipped %+v, want %s", s, tt.skipped[i])
				}
			}
		})
	}
}

func FuzzPlanFreeze(f *testing.F) {
	f.Add(freezeMounts, "/data", "/var/log")
	f.Fuzz(func(t *testing.T, text, want, keep string) {
		all := parseFilesystems(text)
		planFreeze(all, []string{"all", want}, []string{keep})
		seen := map[string]bool{}
		for _, s := range all {
			if !s.chosen {
				continue
			}
			if seen[s.device] || len(s.targets) == 0 || s.kind == "overlay" || slices.Contains(volatile, s.kind) {
				t.Errorf("planned %+v", s)
			}
			seen[s.device] = true
		}
		if h := holder(all, keep); h != nil && seen[h.device] {
			t.Errorf("%s, which holds %s, is planned", h.targets, keep)
		}
	})
}
