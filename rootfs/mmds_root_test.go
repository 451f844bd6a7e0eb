//go:build root

package rootfs

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// metadata answers as Firecracker's docs/mmds say: a token is had by PUT, and in version 2 every GET needs one; a path that is
// not there is 404, a request without a token 401, and values are JSON if that is asked for.
type metadata struct {
	mu      sync.Mutex
	version int
	store   map[string]string
	asked   []string
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, r.Method+" "+r.URL.Path)
	switch {
	case r.Method == "PUT" && r.URL.Path == "/latest/api/token" && m.version == 2:
		if r.Header.Get("X-metadata-token-ttl-seconds") == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = w.Write([]byte("secret=="))
	case r.Method == "PUT":
		w.WriteHeader(http.StatusMethodNotAllowed)
	case m.version == 2 && r.Header.Get("X-metadata-token") != "secret==":
		w.WriteHeader(http.StatusUnauthorized)
	case r.Header.Get("Accept") != "application/json":
		_, _ = w.Write([]byte("keys\nonly\n"))
	case m.store[r.URL.Path] == "":
		w.WriteHeader(http.StatusNotFound)
	default:
		_, _ = w.Write([]byte(m.store[r.URL.Path]))
	}
}

// serveMetadata gives the calling thread's namespace an eth0 at whose other end, in another namespace, the service is.
func serveMetadata(t *testing.T, m *metadata) {
	t.Helper()
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(here)
	pair(t, "eth0", "vmm0")
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	there, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(there)
	must(t, unix.Setns(here, unix.CLONE_NEWNET))
	peer, _, _ := state(t, "vmm0")
	must(t, netlink.LinkSetNsFd(peer, there))
	must(t, unix.Setns(there, unix.CLONE_NEWNET))
	must(t, ConfigureNetwork([]Interface{{Name: "vmm0", Addresses: []netip.Prefix{netip.PrefixFrom(MMDSAddress, 16)}}}))
	l, err := net.Listen("tcp", "169.254.169.254:80")
	must(t, err)
	must(t, unix.Setns(here, unix.CLONE_NEWNET))
	s := &http.Server{Handler: m}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
}

func TestMMDS(t *testing.T) {
	for _, version := range []int{1, 2} {
		unshare(t, unix.CLONE_NEWNET)
		m := &metadata{version: version, store: map[string]string{"/rouse/identity": `{"hostname":"one"}`}}
		serveMetadata(t, m)
		nic := &Interface{Name: "eth0"}
		b, err := MMDS(nic, "/rouse/identity")
		if err != nil || string(b) != `{"hostname":"one"}` {
			t.Fatalf("version %d: %q, %v", version, b, err)
		}
		if _, addresses, _ := state(t, "eth0"); len(addresses) > 0 && hasAddress(addresses, "169.254.169.253/30") != nil {
			t.Errorf("the borrowed address was not given back: %v", addresses)
		}
		// Its contents change with each copy, also for a NIC that has an address and a default route elsewhere.
		must(t, ConfigureNetwork([]Interface{{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("169.254.7.7/16"), netip.MustParsePrefix("192.0.2.9/24")}, Gateway4: netip.MustParseAddr("192.0.2.1")}}))
		m.mu.Lock()
		m.store["/rouse/identity"] = `{"hostname":"two"}`
		m.mu.Unlock()
		if b, err := MMDS(nic, "/rouse/identity"); err != nil || string(b) != `{"hostname":"two"}` {
			t.Errorf("version %d: %q, %v", version, b, err)
		}
		if _, err := MMDS(nic, "/nothing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("version %d: nothing there: %v", version, err)
		}
	}
}

func TestMMDSNobodyThere(t *testing.T) {
	unshare(t, unix.CLONE_NEWNET)
	pair(t, "eth0", "vmm0")
	peer, _, _ := state(t, "vmm0")
	must(t, netlink.LinkSetUp(peer))
	if b, err := MMDS(&Interface{Name: "eth0"}, "/rouse"); err == nil || !strings.Contains(err.Error(), "MMDS /rouse") {
		t.Errorf("%q, %v", b, err)
	}
	if _, addresses, _ := state(t, "eth0"); hasAddress(addresses, "169.254.169.253/30") != nil {
		t.Error("the borrowed address was not given back")
	}
}

// A service that answers without end, or nonsense, costs a bounded time and memory.
func TestMMDSHostile(t *testing.T) {
	for name, say := range map[string]string{"nonsense": "SSH-2.0\r\n\r\n", "long": "HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n", "torn": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"} {
		runtime.LockOSThread()
		unshare(t, unix.CLONE_NEWNET)
		serveMetadata(t, &metadata{}) // for the addresses
		must(t, ConfigureNetwork([]Interface{{Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(MMDSAddress, 16)}}}))
		l, err := net.Listen("tcp", "169.254.169.254:80")
		must(t, err)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(say))
				c.Close()
			}
		}()
		links, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.LinkSetUp(links))
		if status, body, err := mmdsAsk("lo", "GET /", ""); err == nil {
			t.Errorf("%s: %d %q", name, status, body)
		}
		must(t, l.Close())
	}
}

// The container's end is seen by a child that is the first of a pid namespace.
func TestContainer(t *testing.T) {
	if Container() != "" {
		t.Skip("this is a container itself")
	}
	if os.Getenv(guestEnv) != "" {
		return
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, "-test.run", "^TestInContainer$", "-test.v")
	cmd.Env = append(os.Environ(), "ROUSE_TEST_CONTAINER=1")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS: TestInContainer") {
		t.Errorf("%v\n%s", err, out)
	}
	if OwnNetwork() {
		// On a machine without hardware there is nothing to tell the two apart by.
		links, _ := netlink.LinkList()
		t.Logf("the machine's network looks like a container's: %v", links)
	}
}

func TestInContainer(t *testing.T) {
	if os.Getenv("ROUSE_TEST_CONTAINER") == "" {
		t.Skip("only as a child of TestContainer")
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("proc", "/proc", "proc", 0, ""))
	if Container() == "" || os.Getpid() != 1 || !OwnNetwork() {
		t.Errorf("container %q, pid %d, own network %v", Container(), os.Getpid(), OwnNetwork())
	}
	if skipped := LeftToMachine(); len(skipped) < 4 {
		t.Errorf("skipped %q", skipped)
	}
}
