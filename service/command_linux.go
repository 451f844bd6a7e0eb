package service

import (
	"os"
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
	var st unix.Stat_t
	err = unix.Stat(u.spec.Dir, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, about("working directory", u.spec.Dir, err)
	}
	if err := cg.checkThawed(); err != nil {
		return nil, err
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
	env := putenv(append([]string(nil), u.spec.Env...), "PATH="+standardPath, false)
	env = putenv(env, "HOME="+u.who.home, false)
	if u.who.name != "" {
		env = putenv(env, "USER="+u.who.name, false)
		env = putenv(env, "LOGNAME="+u.who.name, false)
	}
	for _, kv := range extra {
		env = putenv(env, kv, true)
	}
	return env
}

// putenv adds "KEY=value" to env if it has no such key, or, if it is to win, in any case.
func putenv(env []string, kv string, win bool) []string {
	key := kv[:strings.IndexByte(kv, '=')]
	if win {
		env = without(env, key)
	} else if _, ok := getenv(env, key); ok {
		return env
	}
	return append(env, kv)
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
	for _, dir := range strings.Split(path, ":") {
		var st unix.Stat_t
		full := dir + "/" + name
		if unix.Stat(full, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			return full, nil
		}
	}
	return "", about("program", name, about("not in PATH", path, unix.ENOENT))
}
