package service

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// standardPath is what a service without a PATH of its own gets; the order is Debian's for root.
const standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// command builds a process of the service in cgroup cg, with its user, folder and environment and a
// session of its own. Nothing of our own environment reaches it.
func (u *unit) command(argv []string, cg *cgroup, extra []string) (*Command, error) {
	env := u.fullEnv(extra)
	path, err := findProgram(argv[0], env)
	if err != nil {
		return nil, err
	}
	// The kernel's error for a missing folder would look like one for a missing program.
	if st, err := os.Stat(u.spec.Dir); err != nil {
		return nil, about("working directory", "", err)
	} else if !st.IsDir() {
		return nil, fmt.Errorf("working directory %s: %w", u.spec.Dir, unix.ENOTDIR)
	}
	return &Command{
		Path: path, Args: argv, Env: env, Dir: u.spec.Dir,
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:      true,
			UseCgroupFD: true,
			CgroupFD:    cg.fd(),
			Credential:  u.who.credential(),
		},
	}, nil
}

// credential is nil for a plain root, so that nothing needs the right to set ids.
func (a account) credential() *syscall.Credential {
	if a.uid == 0 && a.gid == 0 && len(a.groups) == 0 && os.Getuid() == 0 {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}

// fullEnv adds to the configured environment what is missing from it, and extra, which wins.
func (u *unit) fullEnv(extra []string) []string {
	env := append([]string(nil), u.spec.Env...)
	standard := []string{"PATH=" + standardPath, "HOME=" + u.who.home}
	if u.who.name != "" {
		standard = append(standard, "USER="+u.who.name, "LOGNAME="+u.who.name)
	}
	for _, kv := range standard {
		key, _, _ := strings.Cut(kv, "=")
		if _, ok := getenv(env, key); !ok {
			env = append(env, kv)
		}
	}
	for _, kv := range extra {
		key, _, _ := strings.Cut(kv, "=")
		env = append(without(env, key), kv)
	}
	return env
}

func getenv(env []string, key string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], key+"="); ok {
			return v, true
		}
	}
	return "", false
}

func without(env []string, key string) []string {
	kept := env[:0]
	for _, kv := range env {
		if !strings.HasPrefix(kv, key+"=") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// findProgram looks name up in the PATH of env, not in ours.
func findProgram(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path, _ := getenv(env, "PATH")
	for _, dir := range filepath.SplitList(path) {
		full := filepath.Join(dir, name)
		if st, err := os.Stat(full); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", fmt.Errorf("program %q: not in PATH %s: %w", name, path, unix.ENOENT)
}
