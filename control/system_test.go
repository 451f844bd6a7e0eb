package control

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/fstest"
	"time"
)

func TestSetTime(t *testing.T) {
	var set time.Time
	fromRTC := false
	s := NewServer(&fakeGuest{}, ServerOptions{})
	s.clock = clock{func(at time.Time) error { set = at; return nil }, func() error { fromRTC = true; return nil }}
	k := converse(t, s, false)
	k.send(`{"execute":"guest-set-time","arguments":{"time":1700000000000000001}}` + "\n")
	k.expect(`{"return":{}}`)
	if set.UnixNano() != 1700000000000000001 || fromRTC {
		t.Errorf("set to %v, from the RTC: %v", set, fromRTC)
	}
	k.send(`{"execute":"guest-set-time"}` + "\n")
	k.expect(`{"return":{}}`)
	if !fromRTC {
		t.Error("without a time the real-time clock was not asked")
	}
}

// TestSystem asks what any machine can tell.
func TestSystem(t *testing.T) {
	c := connect(t, NewServer(&fakeGuest{}, ServerOptions{}))
	for _, name := range []string{"guest-get-osinfo", "guest-get-vcpus", "guest-get-fsinfo", "guest-get-users", "guest-network-get-interfaces"} {
		var got json.RawMessage
		if err := c.Do(t.Context(), name, nil, &got); err != nil || len(got) < 2 {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	var now int64
	if err := c.Do(t.Context(), "guest-get-time", nil, &now); err != nil || time.Since(time.Unix(0, now)).Abs() > time.Minute {
		t.Errorf("guest-get-time: %d, %v", now, err)
	}
	var host map[string]string
	want, _ := os.Hostname()
	if err := c.Do(t.Context(), "guest-get-host-name", nil, &host); err != nil || host["host-name"] != want {
		t.Errorf("guest-get-host-name: %v, %v", host, err)
	}
	var links []Interface
	if err := c.Do(t.Context(), "guest-network-get-interfaces", nil, &links); err != nil || len(links) == 0 || links[0].Name != "lo" {
		t.Errorf("guest-network-get-interfaces: %v, %v: want lo first", links, err)
	}
}

func TestShutdown(t *testing.T) {
	modes := make(chan string, 3)
	c := converse(t, NewServer(&fakeGuest{shutdown: func(m string) error { modes <- m; return nil }}, ServerOptions{}), false)
	for _, m := range []struct{ args, mode string }{{"", "powerdown"}, {`,"arguments":{"mode":"reboot"}`, "reboot"}} {
		c.send(`{"execute":"guest-shutdown"` + m.args + "}\n")
		if got := <-modes; got != m.mode {
			t.Errorf("got %s, want %s", got, m.mode)
		}
	}
	c.send(`{"execute":"guest-shutdown","arguments":{"mode":"melt"}}` + "\n") // the first that is answered
	c.expect(generic(`guest-shutdown: mode is "melt", must be powerdown, reboot or halt`))
}

func TestRelease(t *testing.T) {
	root := fstest.MapFS{"usr/lib/os-release": {Data: []byte("NAME=\"Debian GNU/Linux\"\nID=debian\n# VERSION=1\nVERSION_ID='12'\n")}}
	var got osInfo
	release(root, &got)
	if want := (osInfo{Name: "Debian GNU/Linux", ID: "debian", VersionID: "12"}); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestVCPUs(t *testing.T) {
	sys := fstest.MapFS{"cpu0/x": {}, "cpu1/online": {Data: []byte("1\n")}, "cpu2/online": {Data: []byte("0\n")}, "cpufreq/x": {}, "cpu3x/y": {}}
	got, err := vcpus(sys)
	want := []vcpu{{0, true, false}, {1, true, true}, {2, false, true}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestDiskMounts(t *testing.T) {
	const info = `22 1 254:1 / / rw,noatime shared:1 - ext4 /dev/vda1 rw
23 22 0:5 / /proc rw - proc proc rw
24 22 254:1 /x /bind rw - ext4 /dev/vda1 rw
25 22 8:16 / /mnt/a\040b rw master:2 shared:3 - xfs /dev/sdb rw
half a line
`
	want := []mount{{"254:1", "/", "ext4", "/dev/vda1"}, {"8:16", "/mnt/a b", "xfs", "/dev/sdb"}}
	if got := diskMounts(info); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestDiskOf(t *testing.T) {
	got := diskOf("/sys/devices/pci0000:00/0000:00:1c.2/0000:0a:04.0/virtio2/block/vda/vda1")
	if want := (diskInfo{PCI: pciAddress{0, 10, 4, 0}, Type: "virtio", Device: "/dev/vda1"}); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestUsers(t *testing.T) {
	record := func(kind uint16, name string, sec uint32) []byte {
		r := make([]byte, utmpSize)
		binary.NativeEndian.PutUint16(r, kind)
		copy(r[utmpUser:], name)
		binary.NativeEndian.PutUint32(r[utmpSeconds:], sec)
		return r
	}
	var utmp []byte
	for _, r := range [][]byte{record(2, "reboot", 1), record(7, "ada", 20), record(7, "bob", 30), record(7, "ada", 10), {1, 2}} {
		utmp = append(utmp, r...)
	}
	if got := users(utmp); !reflect.DeepEqual(got, []guestUser{{"ada", 10}, {"bob", 30}}) {
		t.Errorf("got %v", got)
	}
}

func TestOffUnlessConfigured(t *testing.T) {
	c := connect(t, NewServer(&fakeGuest{}, ServerOptions{}))
	var info struct {
		Commands []commandInfo `json:"supported_commands"`
	}
	if err := c.Do(t.Context(), "guest-info", nil, &info); err != nil || len(info.Commands) != len(commands()) {
		t.Fatalf("%d commands, %v", len(info.Commands), err)
	}
	for _, i := range info.Commands {
		row, _ := NewServer(nil, ServerOptions{}).find(i.Name)
		if i.Enabled != (row.family == always) {
			t.Errorf("%s: enabled: %v", i.Name, i.Enabled)
		}
		if i.Enabled {
			continue
		}
		want := fmt.Sprintf("the command %s is off: the guest's configuration can turn it on", i.Name)
		if err := c.Do(t.Context(), i.Name, nil, nil); err == nil || err.Error() != want {
			t.Errorf("%s: got %v", i.Name, err)
		}
	}
}

func TestExec(t *testing.T) {
	done := make(chan struct{})
	e := &Execution{PID: 42, Done: done}
	var got ExecRequest
	s := NewServer(&fakeGuest{}, ServerOptions{Exec: func(r ExecRequest) (*Execution, error) { got = r; return e, nil }})
	k := converse(t, s, false)
	k.send(`{"execute":"guest-exec","arguments":{"path":"/bin/x","arg":["a"],"env":["K=v"],"input-data":"aGk=","capture-output":true}}` + "\n")
	k.expect(`{"return":{"pid":42}}`)
	want := ExecRequest{"/bin/x", []string{"a"}, []string{"K=v"}, []byte("hi"), true, outputLimit}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	ask := `{"execute":"guest-exec-status","arguments":{"pid":42}}` + "\n"
	k.send(ask)
	k.expect(`{"return":{"exited":false}}`)
	e.ExitCode, e.Out = 3, []byte("out")
	close(done)
	k.send(ask)
	k.expect(`{"return":{"exited":true,"exitcode":3,"out-data":"b3V0"}}`)
	k.send(ask)
	k.expect(generic("guest-exec-status: pid 42: not started by guest-exec, or its end was told already"))
}

func TestFiles(t *testing.T) {
	c, ctx := connect(t, NewServer(&fakeGuest{}, ServerOptions{Files: true})), context.Background()
	path := filepath.Join(t.TempDir(), "f")
	do := func(name string, args map[string]any, result any) {
		t.Helper()
		if err := c.Do(ctx, "guest-file-"+name, args, result); err != nil {
			t.Fatal(err)
		}
	}
	var h int64
	do("open", map[string]any{"path": path, "mode": "w+b"}, &h)
	do("write", map[string]any{"handle": h, "buf-b64": base64.StdEncoding.EncodeToString([]byte("hello world")), "count": 5}, nil)
	do("flush", map[string]any{"handle": h}, nil)
	do("seek", map[string]any{"handle": h, "offset": 1, "whence": "set"}, nil)
	var read struct {
		Count int    `json:"count"`
		Data  []byte `json:"buf-b64"`
		EOF   bool   `json:"eof"`
	}
	do("read", map[string]any{"handle": h, "count": 100}, &read)
	if string(read.Data) != "ello" || read.Count != 4 || read.EOF {
		t.Errorf("got %+v", read)
	}
	do("read", map[string]any{"handle": h}, &read)
	if !read.EOF {
		t.Errorf("got %+v, want the end", read)
	}
	do("close", map[string]any{"handle": h}, nil)
	if err := c.Do(ctx, "guest-file-close", map[string]any{"handle": h}, nil); err == nil {
		t.Error("closed twice")
	}
	if data, _ := os.ReadFile(path); string(data) != "hello" {
		t.Errorf("the file holds %q", data)
	}
}

func TestHandlesAreBounded(t *testing.T) {
	var h handles[int]
	for range maxHandles {
		if _, err := h.add(0, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.add(0, 1); err == nil {
		t.Errorf("handle %d was given", maxHandles+1)
	}
	h.remove(7)
	if n, err := h.add(0, 1); err != nil || n != maxHandles+1 {
		t.Errorf("got %d, %v", n, err)
	}
}

// TestExecAndQuiesce: a program is started before a quiesce begins, or not at all.
func TestExecAndQuiesce(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	g := &fakeGuest{quiesce: func(context.Context, QuiesceOptions) (json.RawMessage, int, error) {
		begun <- true
		<-finish
		return json.RawMessage(`{}`), 1, nil
	}}
	s := NewServer(g, ServerOptions{Exec: func(ExecRequest) (*Execution, error) {
		t.Error("a program was started while the guest is quiesced")
		return &Execution{PID: 1}, nil
	}})
	first, second := converse(t, s, false), converse(t, s, false)
	first.send(`{"execute":"rouse-quiesce"}` + "\n")
	<-begun
	second.send(`{"execute":"guest-exec","arguments":{"path":"/bin/x"}}` + "\n")
	second.expect(`{"error":{"class":"Refused","desc":"guest-exec: refused: a quiesce has begun"}}`)
	finish <- true
	first.expect(`{"return":{}}`)
}
