package firewall

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// cgroup is the second rung: programs on a cgroup that all services are below,
// the root as a rule. They see what sockets send and receive, in every network
// namespace of the machine; they do not see ARP, packet sockets, nor what is
// forwarded or bridged.
type cgroup struct {
	dir   int // descriptor of the cgroup's directory
	valve *valve
}

// openCgroup tries everything in a cgroup of its own, below the root, before
// it takes the root.
func openCgroup(o Options) (mechanism, error) {
	root := o.cgroup
	if root == "" {
		var err error
		if root, err = cgroupRoot(); err != nil {
			return nil, err
		}
	}
	if err := tryCgroup(root, o.Allow); err != nil {
		return nil, err
	}
	return newCgroup(root, o.Allow)
}

const probeName = "rouse-probe-"

// removeStale removes the cgroups of processes that were killed while they probed;
// their programs go with them.
func removeStale(root string) {
	d, err := os.Open(root)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		rest, ours := strings.CutPrefix(name, probeName)
		pid, _, _ := strings.Cut(rest, "-")
		if n, err := strconv.Atoi(pid); ours && err == nil && unix.Kill(n, 0) == unix.ESRCH {
			_ = unix.Rmdir(root + "/" + name)
		}
	}
}

func tryCgroup(root string, allow []Allow) error {
	removeStale(root)
	dir, err := os.MkdirTemp(root, probeName+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return describe(err, "make a cgroup to probe in")
	}
	defer os.Remove(dir)
	c, err := newCgroup(dir, allow)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := try(c, Shut, Hold); err != nil {
		return &UnsupportedError{"cgroup programs for packets", "CONFIG_CGROUP_BPF", err}
	}
	return nil
}

func newCgroup(dir string, allow []Allow) (*cgroup, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	v, err := newValve(false, allow)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &cgroup{dir: fd, valve: v}, nil
}

// cgroupRoot is where cgroup v2 is mounted.
func cgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 36 35 98:0 /root /mount options [optional...] - type source options
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if ok && strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return filepath.Clean(unescape(fields[4])), nil
		}
	}
	return "", fmt.Errorf("no cgroup v2 is mounted: %w", errors.ErrUnsupported)
}

// unescape undoes what /proc/self/mountinfo does to separators. The backslash comes last: what it gives is no
// beginning of another. (A strings.Replacer would do, and is 12 KB of the init.)
func unescape(s string) string {
	for _, e := range [...][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, e[0], e[1])
	}
	return s
}

// set attaches both programs while their word says open, turns the valve, and
// then removes what gates of other processes left: whatever the state was, at
// no moment does less than the old or the new one hold.
func (c *cgroup) set(s State) error {
	found, err := c.attached()
	if err != nil {
		return err
	}
	if s != Open {
		if err := c.attach(found); err != nil {
			return err
		}
	}
	if err := c.valve.set(s); err != nil {
		return err
	}
	return c.detach(found, s == Open)
}

func (c *cgroup) attach(found [2][]programInfo) error {
	for i, p := range c.valve.progs {
		if c.anyOwn(found[i]) {
			continue
		}
		attr := bpfAttach{target: uint32(c.dir), prog: uint32(p.fd), attachType: attachTypes[i], flags: unix.BPF_F_ALLOW_MULTI}
		if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
			return describe(err, "attach %s", p.name)
		}
	}
	return nil
}

// detach removes the programs of other gates, and ours too if all are to go.
// Theirs are turned open first, both directions at once.
func (c *cgroup) detach(found [2][]programInfo, all bool) error {
	var failed error
	for i, infos := range found {
		for _, info := range infos {
			if c.isOwn(info) {
				continue
			}
			for _, id := range info.maps {
				failed = errors.Join(failed, withMap(id, func(fd int) error { return storeState(fd, Open) }))
			}
			failed = errors.Join(failed, c.detachID(i, info.id))
		}
		if all {
			failed = errors.Join(failed, c.detachProgram(i, c.valve.progs[i]))
		}
	}
	return failed
}

func (c *cgroup) detachID(direction int, id uint32) error {
	p, err := programByID(id)
	if err != nil {
		return err
	}
	defer unix.Close(p.fd)
	return c.detachProgram(direction, p)
}

// detachProgram is content if the program was not there.
func (c *cgroup) detachProgram(direction int, p program) error {
	attr := bpfAttach{target: uint32(c.dir), prog: uint32(p.fd), attachType: attachTypes[direction]}
	if _, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil && !errors.Is(err, unix.ENOENT) {
		return describe(err, "detach program")
	}
	return nil
}

// attachTypes by direction: in, out.
var attachTypes = [2]uint32{unix.BPF_CGROUP_INET_INGRESS, unix.BPF_CGROUP_INET_EGRESS}

func (c *cgroup) anyOwn(infos []programInfo) bool {
	for _, info := range infos {
		if c.isOwn(info) {
			return true
		}
	}
	return false
}

func (c *cgroup) isOwn(info programInfo) bool { return slices.Contains(info.maps, c.valve.mapID) }

func (c *cgroup) state() (State, error) {
	found, err := c.attached()
	if err != nil {
		return Open, err
	}
	return valveState(c.valve, found[0], found[1])
}

// valveState tells what state programs that are attached in both directions
// make: exactly one each way, our instructions, and one map for both.
func valveState(v *valve, in, out []programInfo) (State, error) {
	if len(in) == 0 && len(out) == 0 {
		return Open, nil
	}
	if len(in) != 1 || len(out) != 1 {
		return Open, fmt.Errorf("%w: %d programs for what comes in, %d for what goes out", ErrTampered, len(in), len(out))
	}
	if in[0].tag != v.progs[0].tag || out[0].tag != v.progs[1].tag {
		return Open, fmt.Errorf("%w: programs are others, or for another allow list", ErrTampered)
	}
	if len(in[0].maps) != 1 || !slices.Equal(in[0].maps, out[0].maps) {
		return Open, fmt.Errorf("%w: the directions obey different maps", ErrTampered)
	}
	s := Open
	err := withMap(in[0].maps[0], func(fd int) (err error) {
		s, err = loadState(fd)
		return err
	})
	if err == nil && (s == Open || int(s) >= len(stateNames)) {
		// Open leaves no programs: somebody turned the map, or a process that
		// shut or opened a gate died halfway.
		return Open, fmt.Errorf("%w: programs are there and the map says %v", ErrTampered, s)
	}
	return s, err
}

// attached gives the programs under our names, for each direction.
func (c *cgroup) attached() ([2][]programInfo, error) {
	var found [2][]programInfo
	for i, name := range []string{"rouse_in", "rouse_out"} {
		ids, err := c.query(attachTypes[i])
		if err != nil {
			return found, describe(err, "query cgroup's programs")
		}
		for _, id := range ids {
			info, err := infoByID(id)
			if errors.Is(err, unix.ENOENT) {
				continue // gone meanwhile
			}
			if err != nil {
				return found, err
			}
			if info.name == name {
				found[i] = append(found[i], info)
			}
		}
	}
	return found, nil
}

func infoByID(id uint32) (programInfo, error) {
	p, err := programByID(id)
	if err != nil {
		return programInfo{}, err
	}
	defer unix.Close(p.fd)
	return p.info()
}

// maxPrograms is BPF_CGROUP_MAX_PROGS: no cgroup has more.
const maxPrograms = 64

func (c *cgroup) query(attachType uint32) ([]uint32, error) {
	ids := make([]uint32, maxPrograms)
	attr := bpfQuery{target: uint32(c.dir), attachType: attachType, progIDs: unsafe.Pointer(&ids[0]), progCount: maxPrograms}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, err
	}
	return ids[:min(int(attr.progCount), len(ids))], nil
}

func (c *cgroup) coverage() Coverage {
	return Coverage{IPv4: true, IPv6: true, Multicast: true,
		HoldTCP: "SYN without ACK, both directions",
		HoldUDP: "what comes in to an unconnected socket"}
}

// Close leaves attached programs attached; the kernel keeps them.
func (c *cgroup) Close() error {
	return errors.Join(c.valve.Close(), unix.Close(c.dir))
}
