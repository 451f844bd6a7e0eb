package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"rouse/internal/fmt"
)

// sshDir is where OpenSSH keeps a host's keys, see sshd_config(5).
const sshDir = "/etc/ssh/"

// SetHostKeys writes ssh host keys: names such as ssh_host_ed25519_key, and .pub ones, with their contents. All others that are there
// are set aside under the name NAME.twin: a copy that goes on with its twin's keys can be taken for it. Keys are not made here: that
// takes cryptography that /init has no room for, or a fork, which there is none of before the gate opens. It returns the names that were
// set aside; sshd reads keys when it starts.
func SetHostKeys(keys map[string]string) (aside []string, err error) {
	for name, text := range keys {
		if !strings.HasPrefix(name, "ssh_host_") || strings.Contains(name, "/") {
			return nil, fmt.Errorf("ssh host key %q: want a name such as ssh_host_ed25519_key", name)
		}
		mode := fs.FileMode(0o600)
		if strings.HasSuffix(name, ".pub") {
			mode = 0o644
		}
		if err := WriteSystemFile(sshDir+name, []byte(text), mode); err != nil {
			return nil, err
		}
	}
	found, _ := filepath.Glob(sshDir + "ssh_host_*_key*")
	for _, path := range found {
		name := path[len(sshDir):]
		if _, given := keys[name]; given || strings.HasSuffix(name, ".twin") {
			continue
		}
		err = errors.Join(err, os.Rename(path, path+".twin"))
		aside = append(aside, name)
	}
	return aside, err
}
