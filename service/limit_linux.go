package service

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// enableControllers hands the controllers that some service's limits need down to the services'
// cgroups. A service must not run without a limit that it was given, so a missing one is an error.
func (m *Manager) enableControllers() error {
	specs := make([]Spec, len(m.units))
	for i, u := range m.units {
		specs[i] = u.spec
	}
	need := controllers(specs)
	if len(need) == 0 {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(m.o.CgroupRoot, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	have := strings.Fields(string(data))
	for _, name := range need {
		if !contains(have, name) {
			return fmt.Errorf("limits: the %s controller is not there (kernel option %s, or it is bound to cgroup v1)", name, controllerOption[name])
		}
	}
	for _, dir := range []string{m.o.CgroupRoot, m.services.path} {
		if err := delegate(dir, need); err != nil {
			return fmt.Errorf("limits: %w", err)
		}
	}
	return nil
}

var controllerOption = map[string]string{"memory": "CONFIG_MEMCG", "cpu": "CONFIG_CFS_BANDWIDTH", "pids": "CONFIG_CGROUP_PIDS"}

func delegate(dir string, names []string) error {
	value := []byte("+" + strings.Join(names, " +"))
	file := filepath.Join(dir, "cgroup.subtree_control")
	err := os.WriteFile(file, value, 0)
	if errors.Is(err, unix.EBUSY) { // not the real root, and we are in it: only leaves may hold processes
		if err = stepAside(dir); err == nil {
			err = os.WriteFile(file, value, 0)
		}
	}
	return err
}

// stepAside moves the processes of dir into a leaf of it.
func stepAside(dir string) error {
	leaf := filepath.Join(dir, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(data)) {
		err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move pid %s to %s: %w", pid, leaf, err)
		}
	}
	return nil
}

// apply writes the limits of a service, before each start: the directory may be new.
func (c *cgroup) apply(l Limits) error {
	for _, s := range l.settings() {
		if err := os.WriteFile(filepath.Join(c.path, s.file), []byte(s.value), 0); err != nil {
			return fmt.Errorf("limit: %w", err)
		}
	}
	return nil
}

// oomKills returns how many processes of c were killed for want of memory, 0 without the controller.
func (c *cgroup) oomKills() int {
	data, err := os.ReadFile(filepath.Join(c.path, "memory.events"))
	if err != nil {
		return 0
	}
	return counter(data, "oom_kill")
}

// counter finds "key N" in a flat keyed file.
func counter(data []byte, key string) int {
	for _, line := range bytes.Split(data, []byte{'\n'}) {
		if v, ok := bytes.CutPrefix(line, []byte(key+" ")); ok {
			if n, err := strconv.Atoi(string(v)); err == nil {
				return n
			}
		}
	}
	return 0
}
