package control

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"rouse/internal/fmt"
)

// What the guest agent tells of the system that it runs on. The readers take an fs.FS or bytes; the
// effects stand in system_linux.go.

func getTime(_ context.Context, _ *Server, _ *arguments) (any, error) {
	return time.Now().UnixNano(), nil
}

// clock steps the machine's time; tests must not.
type clock struct {
	set     func(time.Time) error
	fromRTC func() error
}

// setTime steps the clock: to the time given, in ns since 1970, or to the real-time clock's.
func setTime(_ context.Context, s *Server, a *arguments) (any, error) {
	if a.Time == nil {
		return empty{}, s.clock.fromRTC()
	}
	return empty{}, s.clock.set(time.Unix(0, *a.Time))
}

func getHostName(_ context.Context, _ *Server, _ *arguments) (any, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return struct {
		Name string `json:"host-name"`
	}{name}, nil
}

// identity is what no two machines have alike, for a host that compares clones.
type identity struct {
	BootID    string `json:"boot-id"`
	MachineID string `json:"machine-id"`
	Random    []byte `json:"random"` // drawn for this answer, of no other use
}

func rouseIdentity(_ context.Context, _ *Server, _ *arguments) (any, error) {
	var id identity
	for path, to := range map[string]*string{"/proc/sys/kernel/random/boot_id": &id.BootID, "/etc/machine-id": &id.MachineID} {
		if text, err := os.ReadFile(path); err == nil { // an image need not have a machine id
			*to = strings.TrimSpace(string(text))
		}
	}
	random, err := os.Open("/dev/urandom")
	if err != nil {
		return nil, err
	}
	defer random.Close()
	id.Random = make([]byte, 32)
	_, err = io.ReadFull(random, id.Random)
	return id, err
}

type osInfo struct {
	KernelRelease string `json:"kernel-release,omitempty"`
	KernelVersion string `json:"kernel-version,omitempty"`
	Machine       string `json:"machine,omitempty"`
	ID            string `json:"id,omitempty"`
	Name          string `json:"name,omitempty"`
	PrettyName    string `json:"pretty-name,omitempty"`
	Version       string `json:"version,omitempty"`
	VersionID     string `json:"version-id,omitempty"`
	Variant       string `json:"variant,omitempty"`
	VariantID     string `json:"variant-id,omitempty"`
}

func getOSInfo(_ context.Context, _ *Server, _ *arguments) (any, error) {
	info, err := kernelInfo()
	if err != nil {
		return nil, err
	}
	release(os.DirFS("/"), &info)
	return info, nil
}

// release adds what os-release(5) says; a guest of one static binary has none.
func release(root fs.FS, info *osInfo) {
	data, err := fs.ReadFile(root, "etc/os-release")
	if err != nil {
		data, _ = fs.ReadFile(root, "usr/lib/os-release")
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if p := info.field(key); p != nil {
			*p = strings.Trim(value, `"'`)
		}
	}
}

func (o *osInfo) field(key string) *string {
	switch key {
	case "ID":
		return &o.ID
	case "NAME":
		return &o.Name
	case "PRETTY_NAME":
		return &o.PrettyName
	case "VERSION":
		return &o.Version
	case "VERSION_ID":
		return &o.VersionID
	case "VARIANT":
		return &o.Variant
	case "VARIANT_ID":
		return &o.VariantID
	}
	return nil
}

func shutdown(_ context.Context, s *Server, a *arguments) (any, error) {
	if a.Mode == "" {
		a.Mode = "powerdown"
	}
	switch a.Mode {
	case "powerdown", "reboot", "halt":
		return nil, s.guest.Shutdown(a.Mode)
	}
	return nil, fmt.Errorf("mode is %q, must be powerdown, reboot or halt", a.Mode)
}

type vcpu struct {
	ID         int  `json:"logical-id"`
	Online     bool `json:"online"`
	CanOffline bool `json:"can-offline"`
}

func getVCPUs(_ context.Context, _ *Server, _ *arguments) (any, error) {
	cpus, err := vcpus(os.DirFS("/sys/devices/system/cpu"))
	if err != nil {
		return nil, err
	}
	return cpus, nil
}

// vcpus reads sysfs: a CPU without the file "online" cannot be taken off line.
func vcpus(sys fs.FS) ([]vcpu, error) {
	dirs, err := fs.Glob(sys, "cpu[0-9]*")
	if err != nil {
		return nil, err
	}
	all := []vcpu{}
	for _, dir := range dirs {
		id, err := strconv.Atoi(strings.TrimPrefix(dir, "cpu"))
		if err != nil {
			continue
		}
		online, err := fs.ReadFile(sys, dir+"/online")
		all = append(all, vcpu{id, err != nil || strings.TrimSpace(string(online)) == "1", err == nil})
	}
	return all, nil
}

type guestUser struct {
	User  string  `json:"user"`
	Login float64 `json:"login-time"` // seconds since 1970
}

func getUsers(_ context.Context, _ *Server, _ *arguments) (any, error) {
	data, err := os.ReadFile("/run/utmp")
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return users(data), nil
}

// The layout of a utmp record on Linux (utmp(5), struct utmp with 32-bit times on every 64-bit machine that glibc
// knows): ut_type at 0, ut_user[32] at 44, ut_tv at 340, 384 bytes in all.
const (
	utmpSize     = 384
	utmpUser     = 44
	utmpUserEnd  = utmpUser + 32
	utmpSeconds  = 340
	utmpMicros   = 344
	utmpUserProc = 7 // USER_PROCESS
)

// users lists each logged-in user once, with the earliest login.
func users(utmp []byte) []guestUser {
	all := []guestUser{}
next:
	for ; len(utmp) >= utmpSize; utmp = utmp[utmpSize:] {
		if int16(binary.NativeEndian.Uint16(utmp)) != utmpUserProc {
			continue
		}
		name, _, _ := bytes.Cut(utmp[utmpUser:utmpUserEnd], []byte{0})
		at := float64(binary.NativeEndian.Uint32(utmp[utmpSeconds:])) + float64(binary.NativeEndian.Uint32(utmp[utmpMicros:]))/1e6
		for i := range all {
			if all[i].User == string(name) {
				all[i].Login = min(all[i].Login, at)
				continue next
			}
		}
		all = append(all, guestUser{string(name), at})
	}
	return all
}
