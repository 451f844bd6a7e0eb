//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"rouse/vmm"
)

// The source has the user-mode network, which lends it an address, and a network that all machines of the test are on.
const identityConfig = `hostname = "source"

[[interface]]
name = "eth0"
dhcp = "both"

[[interface]]
name = "eth1"
addresses = ["10.9.0.10/24", "fd09::10/64"]

[[service]]
name = "reach"
exec = ["/usr/bin/reach", "10.9.0.10", "fd09::10", "10.9.0.11", "fd09::11", "10.9.0.12", "fd09::12", "10.9.0.13", "fd09::13"]
ready = "port"
ready-port = 7778
`

// lan is a second NIC on a network of QEMUs: datagrams to a multicast group that leave loopback nowhere.
func lan(port int) func(*vmm.Config) {
	return func(c *vmm.Config) {
		c.Extra = append(c.Extra, "-netdev", fmt.Sprintf("socket,id=lan,mcast=230.0.0.1:%d,localaddr=127.0.0.1", port),
			"-device", "virtio-net-pci,netdev=lan,mac=02:00:00:00:00:10,romfile=")
		// What says that this machine is told things by fw_cfg, so that its copies look there.
		c.Extra = append(c.Extra, "-fw_cfg", "name=opt/rouse/log.console,string=info")
		c.Forwards = []vmm.Forward{{GuestPort: 7778}}
	}
}

// Three clones on one network with their source, which goes on: each is told by its own fw_cfg who it is, before its gate opens.
func TestThreeClonesAndTheirSource(t *testing.T) {
	forKernels(t, func(t *testing.T, series string) {
		img := lab.Image(t, series, identityConfig, map[string]string{"/usr/bin/reach": program(t, "reach")})
		plug := lan(20000 + os.Getpid()%20000)
		source := Boot(t, img, plug)
		g := Talk(t, source)
		if s, _ := g.Wait("running"); len(s.Problems) > 0 {
			t.Errorf("problems %q", s.Problems)
		}
		ctx, cancel := context.WithTimeout(t.Context(), Timeout)
		defer cancel()
		memory := filepath.Join(t.TempDir(), "memory")
		g.Do("rouse-quiesce", nil, nil)
		if err := source.Snapshot(ctx, memory); err != nil {
			t.Fatal(err)
		}
		if err := source.Cont(ctx); err != nil {
			t.Fatal(err)
		}
		g.Do("rouse-release", nil, nil)
		machines := []*vmm.VM{source}
		for n := 1; n <= 3; n++ {
			machines = append(machines, cloneAs(t, img, memory, plug, n))
		}
		everybodyReaches(t, machines)
	})
}

func machineName(n int) string { return []string{"source", "one", "two", "three"}[n] }

func cloneAs(t *testing.T, img, memory string, plug func(*vmm.Config), n int) *vmm.VM {
	t.Helper()
	who := filepath.Join(t.TempDir(), "identity")
	text := fmt.Sprintf(`{"hostname":%q,"machine-id":"random","interfaces":[{"name":"eth1","mac":"02:00:00:00:00:%d","addresses":["10.9.0.%d/24","fd09::%d/64"],"routes":[{"to":"10.77.0.0/16","via":"10.9.0.10"}]}]}`,
		machineName(n), 10+n, 10+n, 10+n)
	if err := os.WriteFile(who, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	vm := Boot(t, img, func(c *vmm.Config) {
		plug(c)
		c.Incoming = memory
		c.Extra = append(c.Extra, "-fw_cfg", "name=opt/rouse/identity,file="+who)
	})
	_, r := Talk(t, vm).Wait("running", "held")
	for _, p := range r.Phases {
		if p.Name != "identity" {
			continue
		}
		detail, _ := json.Marshal(p.Detail)
		t.Logf("clone %d: %s", n, detail)
		if !strings.Contains(string(detail), "fw_cfg") || strings.Contains(string(detail), `"boot-id":"kept`) || !strings.Contains(string(detail), "/dev/rtc0") {
			t.Errorf("clone %d: identity %s", n, detail)
		}
	}
	if r.Outcome != "open" {
		t.Fatalf("clone %d: %+v", n, r)
	}
	return vm
}

// asked is what a machine says of itself and of the others.
func asked(t *testing.T, vm *vmm.VM) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	f, err := vm.Forwards(ctx)
	if err != nil || len(f) == 0 {
		t.Fatalf("forwards %v: %v", f, err)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", f[0].HostPort))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	end, _ := ctx.Deadline()
	_ = c.SetDeadline(end)
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%v after %s", err, b)
	}
	return string(b)
}

func everybodyReaches(t *testing.T, machines []*vmm.VM) {
	t.Helper()
	macs, owners := map[string]string{}, map[string]string{}
	for from, vm := range machines {
		got := asked(t, vm)
		for n := range machines {
			for _, want := range []string{fmt.Sprintf("10.9.0.%d %s\n", 10+n, machineName(n)), fmt.Sprintf("fd09::%d %s\n", 10+n, machineName(n))} {
				if !strings.Contains(got, want) {
					t.Errorf("%s asks, wants %q:\n%s", machineName(from), want, got)
				}
			}
		}
		for line := range strings.Lines(got) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch name {
			case "neighbour":
				ip, mac, _ := strings.Cut(value, " ")
				if before := macs[ip]; before != "" && before != mac {
					t.Errorf("%s is %s for one and %s for %s", ip, before, mac, machineName(from))
				}
				macs[ip] = mac
			case "/etc/machine-id", "/proc/sys/kernel/random/boot_id":
				if other := owners[value]; other != "" && value != "missing" {
					t.Errorf("%s and %s have the same %s", other, machineName(from), name)
				}
				owners[value] = machineName(from)
			case "time":
				if now, _ := strconv.ParseInt(value, 10, 64); time.Since(time.Unix(now, 0)).Abs() > 30*time.Second {
					t.Errorf("%s: its clock says %v", machineName(from), time.Unix(now, 0))
				}
			case "addresses":
				if !strings.Contains(value, "10.0.2.15/24") || strings.Contains(value, "10.9.0.10/") != (from == 0) {
					t.Errorf("%s has %s", machineName(from), value)
				}
			}
		}
	}
	for ip, mac := range macs {
		if other := owners[mac]; other != "" {
			t.Errorf("%s and %s have the MAC %s", ip, other, mac)
		}
		owners[mac] = ip
	}
	if len(macs) != len(machines) {
		t.Errorf("neighbours %v", macs)
	}
}
