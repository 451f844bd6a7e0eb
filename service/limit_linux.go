package service

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// enableControllers hands the controllers that some service's limits need down to the services'
// cgroups. A service must not run without a limit that it was given, so a missing one is an error.
func (m *Manager) enableControllers() error {
	need := controllers(m.units)
	if len(need) == 0 {
		return nil
	}
	data, err := readKernel(m.o.CgroupRoot + "/cgroup.controllers")
	if err != nil {
		return about("limits", "", err)
	}
	have := strings.Fields(string(data))
	for _, name := range need {
		if !contains(have, name) {
			return fmt.Errorf("limits: the %s controller is not there (kernel option %s, or it is bound to cgroup v1)", name, controllerOption(name))
		}
	}
	if err := delegate(m.o.CgroupRoot, need); err != nil {
		return about("limits", "", err)
	}
	return about("limits", "", delegate(m.services.path, need))
}

func controllerOption(name string) string {
	switch name {
	case "memory":
		return "CONFIG_MEMCG"
	case "cpu":
		return "CONFIG_CFS_BANDWIDTH"
	}
	return "CONFIG_CGROUP_PIDS"
}

func delegate(dir string, names []string) error {
	value := "+" + strings.Join(names, " +")
	file := dir + "/cgroup.subtree_control"
	err := writeKernel(file, value)
	if err == unix.EBUSY { // not the real root, and we are in it: only leaves may hold processes
		if err = stepAside(dir); err == nil {
			err = writeKernel(file, value)
		}
	}
	return err
}

// stepAside moves the processes of dir into a leaf of it.
func stepAside(dir string) error {
	leaf := dir + "/init"
	if err := unix.Mkdir(leaf, 0o755); err != nil && err != unix.EEXIST {
		return about("cgroup", leaf, err)
	}
	var failed error
	eachLine(dir+"/cgroup.procs", func(pid string) {
		err := writeKernel(leaf+"/cgroup.procs", pid)
		if err != nil && err != unix.ESRCH {
			failed = about("move pid "+pid+" to", leaf, err)
		}
	})
	return failed
}

// apply writes the limits of a service, before each start: the directory may be new.
func (c *cgroup) apply(l *Limits) error {
	for _, s := range l.settings() {
		if err := writeKernel(c.path+"/"+s.file, s.value); err != nil {
			return about("limit", s.file, err)
		}
	}
	return nil
}

// oomKills returns how many processes of c were killed for want of memory, 0 without the controller.
func (c *cgroup) oomKills() int {
	data, _ := readKernel(c.path + "/memory.events")
	return counter(data, "oom_kill")
}

// counter finds "key N" in a flat keyed file.
func counter(data []byte, key string) int {
	for _, line := range strings.Split(string(data), "\n") {
		if v, ok := strings.CutPrefix(line, key+" "); ok {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	return 0
}
