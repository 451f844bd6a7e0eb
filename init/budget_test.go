package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sizeBudget is what /init may weigh, stripped, in bytes (2026-11): it lies in the memory of every guest.
const sizeBudget = 4 << 20

// guestPackages is every package that /init may contain, with the reason. Packages named internal or
// vendor belong to those of the standard library that stand here.
var guestPackages = map[string]string{
	"rouse/init":                "this",
	"rouse/acpi":                "the VMGenID's address",
	"rouse/config":              "/etc/rouse.toml",
	"rouse/config/toml":         "reading it, with the place of every mistake",
	"rouse/control":             "the host channel",
	"rouse/doctor":              "what a kernel offers",
	"rouse/firewall":            "the gate",
	"rouse/genid":               "noticing a generation, reseeding",
	"rouse/genid/sysgenid":      "/dev/sysgenid",
	"rouse/quiesce":             "the flow",
	"rouse/quiesce/sockdiag":    "the drain",
	"rouse/rootfs":              "early boot",
	"rouse/rootfs/kmod":         "the index of modules",
	"rouse/rootfs/rtnl":         "links, addresses and routes: vishvananda/netlink is 0.3 MB more",
	"rouse/service":             "supervision",
	"rouse/internal/definition": "what a service's definition may say, for config and service",
	"rouse/internal/rcu":        "grace periods in a hurry, for the barrier and for freezing file systems",
	"rouse/internal/guard":      "a panic in a goroutine must not end PID 1",
	"rouse/internal/fmt":        "formatting: the standard library's is 0.07 MB more",
	"rouse/internal/json":       "JSON: all but the type RawMessage of encoding/json is 0.15 MB more",

	"golang.org/x/sys/cpu":  "whether the CPU has a random generator",
	"golang.org/x/sys/unix": "system calls",
}

// standardPackages are those of the standard library, in one table because they share one reason: each
// is small, or is there anyway because the runtime, os or encoding/json want it. What is kept out:
// net (the resolver is 0.35 MB), net/http, crypto/*, log, text/template, regexp.
var standardPackages = strings.Fields(`
	bufio bytes cmp context encoding encoding/base64 encoding/binary encoding/hex encoding/json errors fmt hash hash/maphash
	io io/fs io/ioutil iter maps math math/bits math/rand math/rand/v2 net/netip os os/exec os/signal path path/filepath
	reflect runtime runtime/cgo runtime/debug slices sort strconv strings sync sync/atomic syscall time unicode
	unicode/utf16 unicode/utf8 unique unsafe weak`)

func TestGuestPackages(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		for _, p := range deps(t, arch, "rouse/init") {
			inside := "/" + p + "/"
			if strings.Contains(inside, "/internal/") || strings.HasPrefix(p, "vendor/") {
				continue
			}
			if guestPackages[p] == "" && !slices.Contains(standardPackages, p) {
				t.Errorf("%s: /init contains %s: put it into the list with the reason, or keep it out", arch, p)
			}
		}
	}
}

// hostModules are the modules beside the standard library that out/rouse may contain.
var hostModules = map[string]string{
	"rouse":                         "this",
	"github.com/alecthomas/kong":    "command line",
	"github.com/vbauerster/mpb":     "progress on a terminal",
	"github.com/VividCortex/ewma":   "of mpb",
	"github.com/acarl005/stripansi": "of mpb",
	"github.com/dustin/go-humanize": "of u-root's cpio",
	"github.com/mattn/go-runewidth": "of mpb",
	"github.com/rivo/uniseg":        "of go-runewidth",
	"github.com/clipperhouse":       "of go-runewidth",
	"github.com/klauspost/compress": "gzip and zstd of images",
	"github.com/u-root/u-root":      "cpio archives",
	"github.com/u-root/uio":         "of u-root",
	"github.com/pierrec/lz4":        "of u-root's uio",
	"golang.org/x/sys":              "system calls",

	"github.com/google/go-containerregistry":      "images and snapshots in registries, layouts and archives",
	"github.com/docker/cli":                       "the user's registry credentials, of go-containerregistry",
	"github.com/docker/docker-credential-helpers": "of docker/cli",
	"github.com/opencontainers/go-digest":         "of go-containerregistry",
	"github.com/opencontainers/image-spec":        "of go-containerregistry",
	"github.com/sirupsen/logrus":                  "of docker/cli",
	"golang.org/x/sync":                           "of go-containerregistry",
}

func TestHostPackages(t *testing.T) {
	for _, p := range deps(t, "amd64", "rouse/cmd/rouse") {
		first, _, _ := strings.Cut(p, "/")
		if !strings.Contains(first, ".") && first != "rouse" {
			continue // standard library
		}
		known := false
		for m := range hostModules {
			known = known || p == m || strings.HasPrefix(p, m+"/")
		}
		if !known {
			t.Errorf("out/rouse contains %s: put its module into the list with the reason, or keep it out", p)
		}
	}
}

// TestPackagesStandAlone keeps siblings from importing each other: dependencies point one way.
func TestPackagesStandAlone(t *testing.T) {
	allowed := map[string][]string{
		"rouse/acpi":             nil,
		"rouse/config":           nil,
		"rouse/control":          nil,
		"rouse/doctor":           nil,
		"rouse/firewall":         nil,
		"rouse/genid":            {"rouse/acpi"},
		"rouse/genid/sysgenid":   nil,
		"rouse/quiesce":          nil,
		"rouse/quiesce/sockdiag": nil,
		"rouse/rootfs":           nil,
		"rouse/rootfs/image":     {"rouse/rootfs"},
		"rouse/service":          nil,
		"rouse/vmm":              {"rouse/control"},
	}
	shared := []string{"rouse/internal/json", "rouse/internal/guard", "rouse/internal/fmt", "rouse/internal/definition", "rouse/internal/rcu"}
	for p, may := range allowed {
		for _, d := range deps(t, "amd64", p) {
			if !strings.HasPrefix(d, "rouse/") || d == p || strings.HasPrefix(d, p+"/") || slices.Contains(shared, d) {
				continue
			}
			if !slices.ContainsFunc(may, func(m string) bool { return d == m || strings.HasPrefix(d, m+"/") }) {
				t.Errorf("%s imports %s; it may import %q", p, d, may)
			}
		}
	}
}

func deps(t *testing.T, arch, pkg string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", pkg)
	cmd.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// TestSize builds /init as the Makefile does.
func TestSize(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	cmd := exec.Command("make", "-s", "-C", "..", "build-init", "OUT="+out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	info, err := os.Stat(filepath.Join(out, "init"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("/init: %d bytes, %d%% of the budget", info.Size(), 100*info.Size()/sizeBudget)
	if info.Size() > sizeBudget {
		t.Errorf("/init has %d bytes, its budget is %d", info.Size(), sizeBudget)
	}
}
