package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// debian reads the configuration of one of the kernels that tests boot.
func debian(t *testing.T, series string) Config {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "out", "kernels", series, "config"))
	if err != nil {
		t.Skipf("no configuration of kernel %s (make kernels): %v", series, err)
	}
	defer f.Close()
	c, err := ReadConfig(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *Report) find(t *testing.T, need string) Finding {
	t.Helper()
	i := slices.IndexFunc(r.Needs, func(f Finding) bool { return f.Need == need })
	if i < 0 {
		t.Fatalf("no need %q", need)
	}
	return r.Needs[i]
}

func TestDebian(t *testing.T) {
	for series, want := range map[string]map[string]string{
		"6.1": {"generation": "vmgenid page", "notification": "", "watchers": "pagecache", "gate": "nftables", "gate below IP": "tc", "hold": "new flows are refused",
			"drain TCP": "sock_diag", "sever": "SOCK_DESTROY", "barrier": "packet socket", "compressed modules": "", "virtio-serial": "virtio_console"},
		"6.12": {"generation": "vmgenid page", "notification": "vmgenid driver", "watchers": "passthrough", "gate": "nftables", "compressed modules": "by the kernel"},
	} {
		c := debian(t, series)
		r := Judge(series, c.Has)
		if !r.Safe {
			t.Errorf("%s: %s", series, r.Verdict)
		}
		for need, chosen := range want {
			if f := r.find(t, need); f.Chosen != chosen {
				t.Errorf("%s: %+v, want %q", series, f, chosen)
			}
		}
	}
}

// TestOptionsExist catches options that are spelled wrong: Kconfig writes every option that it knows, on or off.
func TestOptionsExist(t *testing.T) {
	text := ""
	for _, series := range []string{"6.1", "6.12"} {
		data, err := os.ReadFile(filepath.Join("..", "out", "kernels", series, "config"))
		if err != nil {
			t.Skipf("no configuration of kernel %s (make kernels): %v", series, err)
		}
		text += string(data)
	}
	elsewhere := []string{"SYSGENID", "OF", "LOCK_DOWN_KERNEL_FORCE_INTEGRITY"} // Amazon Linux; arm64; not chosen
	elsewhere = append(elsewhere, "PTP_1588_CLOCK_VMCLOCK")                     // Linux 6.13
	for _, n := range needs {
		for _, w := range n.Ways {
			for _, option := range strings.FieldsFunc(w.Options, func(r rune) bool { return strings.ContainsRune(" |!", r) }) {
				if !strings.Contains(text, "CONFIG_"+option+"=") && !strings.Contains(text, "CONFIG_"+option+" is") && !slices.Contains(elsewhere, option) {
					t.Errorf("%s: no kernel knows CONFIG_%s", n.Name, option)
				}
			}
		}
	}
}

// good is the least that is safe, in the words of a .config.
const good = `#
# Linux/x86 6.12.0 Kernel Configuration
#
CONFIG_PROC_FS=y
CONFIG_SYSFS=y
CONFIG_TMPFS=y
CONFIG_DEVTMPFS=y
CONFIG_ACPI=y
CONFIG_DEVMEM=y
CONFIG_FUSE_FS=y
CONFIG_NF_TABLES=m
CONFIG_NF_TABLES_INET=y
CONFIG_PACKET=y
CONFIG_CGROUPS=y
CONFIG_LOCALVERSION=""
# CONFIG_INET_DIAG is not set
`

// Each change of the good configuration costs what it says.
func TestDoctored(t *testing.T) {
	for name, tt := range map[string]struct {
		old, new, need, chosen, missing string
		safe                            bool
	}{
		"as it is":            {"", "", "gate", "nftables", "", true},
		"no inet":             {"CONFIG_NF_TABLES_INET=y\n", "", "gate", "", "NF_TABLES_INET", false},
		"cgroup gate":         {"CONFIG_NF_TABLES_INET=y", "CONFIG_CGROUP_BPF=y\nCONFIG_BPF_SYSCALL=y", "gate", "cgroup", "NF_TABLES_INET", true},
		"fib gate":            {"CONFIG_NF_TABLES_INET=y", "CONFIG_IP_MULTIPLE_TABLES=y\nCONFIG_IPV6_MULTIPLE_TABLES=y", "gate", "fib", "NET_SCH_INGRESS NET_CLS_BPF BPF_SYSCALL", true},
		"no FUSE":             {"CONFIG_FUSE_FS=y\n", "", "watchers", "", "SYSGENID", false},
		"FUSE off":            {"CONFIG_FUSE_FS=y", "# CONFIG_FUSE_FS is not set", "watchers", "", "SYSGENID", false},
		"FUSE =n":             {"CONFIG_FUSE_FS=y", "CONFIG_FUSE_FS=n", "watchers", "", "SYSGENID", false},
		"no /dev/mem":         {"CONFIG_DEVMEM=y\n", "", "generation", "", "DEVMEM", false},
		"vmclock":             {"CONFIG_DEVMEM=y", "CONFIG_PTP_1588_CLOCK_VMCLOCK=y", "generation", "vmclock", "", true},
		"locked down":         {"CONFIG_DEVMEM=y", "CONFIG_DEVMEM=y\nCONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y", "generation", "", "!LOCK_DOWN_KERNEL_FORCE_INTEGRITY", false},
		"driver alone":        {"CONFIG_DEVMEM=y", "CONFIG_VMGENID=y", "generation", "vmgenid driver", "SYSGENID", true},
		"no cgroups":          {"CONFIG_CGROUPS=y\n", "", "freezer", "", "CGROUPS", false},
		"membarrier":          {"CONFIG_PACKET=y", "CONFIG_MEMBARRIER=y", "barrier", "membarrier", "", true},
		"no packet":           {"CONFIG_PACKET=y\n", "", "barrier", "", "PACKET", false},
		"no diag":             {"", "", "drain TCP", "/proc/net", "INET_DIAG INET_TCP_DIAG", true},
		"disconnect":          {"", "", "sever", "disconnect", "INET_DIAG INET_TCP_DIAG INET_DIAG_DESTROY", true},
		"conntrack untracked": {"", "", "conntrack", "not tracked", "", true},
		"conntrack stays":     {"", "CONFIG_NF_CONNTRACK=m\n", "conntrack", "", "NF_CT_NETLINK", true},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, tt.old, tt.new, 1)
			c, err := ReadConfig(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			r := Judge("test", c.Has)
			f := r.find(t, tt.need)
			if r.Safe != tt.safe || f.Chosen != tt.chosen || f.Missing != tt.missing {
				t.Errorf("safe %v, %+v", r.Safe, f)
			}
			if f.Chosen == "" && f.Cost == "" {
				t.Error("nothing says what that costs")
			}
			if !tt.safe && !strings.Contains(r.Verdict, tt.need) {
				t.Errorf("verdict %q does not name %s", r.Verdict, tt.need)
			}
			if !strings.Contains(r.Text(true), tt.need+": ") {
				t.Errorf("text without %s:\n%s", tt.need, r.Text(true))
			}
		})
	}
}

func TestModulesAreNamed(t *testing.T) {
	c, err := ReadConfig(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if f := Judge("test", c.Has).find(t, "gate"); f.Modules != "NF_TABLES" {
		t.Errorf("%+v", f)
	}
}

func TestNoConfig(t *testing.T) {
	for _, text := range []string{"", "\x7fELF", "NF_TABLES=y\n"} {
		if _, err := ReadConfig(strings.NewReader(text)); !errors.Is(err, ErrNoConfig) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("CONFIG_=y\nCONFIG_A\n# CONFIG_B is not set\nCONFIG_C==m"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ReadConfig(strings.NewReader(string(text)))
		if err != nil {
			return
		}
		for _, finding := range Judge("fuzz", c.Has).Needs {
			if finding.Chosen == "" && finding.Missing == "" {
				t.Fatalf("%+v: not there, and nothing missing", finding)
			}
		}
	})
}

// TestProbe judges by facts and files: each sign alone makes its way the chosen one.
func TestProbe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "words")
	if err := os.WriteFile(file, []byte("nodev\tproc\n\text4\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for probe, want := range map[string]bool{
		"fact": true, "other": false, "other|fact": true, "fac": false, "a:b": true,
		file: true, file + "x": false, file + ":ext4": true, file + ":ext": false, file + "x:ext4": false, "other|" + file: true,
	} {
		if ok, _, _ := Probe([]string{"fact", "a:b"})(&Way{Probe: probe}); ok != want {
			t.Errorf("%s: %v, want %v", probe, ok, want)
		}
	}
}

// TestTable: every need can be probed for and costs something or cannot be missing.
func TestTable(t *testing.T) {
	for _, n := range needs {
		for i, w := range n.Ways {
			if w.Name == "" || w.Probe == "" {
				t.Errorf("%s: way %d lacks its name or its probe", n.Name, i)
			}
			if i == 0 && w.Cost != "" {
				t.Errorf("%s: the best way costs something", n.Name)
			}
		}
		if last := n.Ways[len(n.Ways)-1]; n.Cost == "" && last.Options != "PROC_FS" && last.Options != "PACKET PROC_FS" {
			t.Errorf("%s: what does its lack cost?", n.Name)
		}
	}
}
