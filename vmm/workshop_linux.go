package vmm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Names in a folder that is being made.
const (
	lockFile  = ".lock"
	runFolder = ".run" // of the machine that is baked
)

// unfinished marks the folder's own name: what is named so may be removed if nobody holds its lock.
const unfinished = ".rouse-unfinished-"

// abandonedAfter is the age at which a folder without a lock counts as left behind: its maker has had
// time enough to take the lock.
const abandonedAfter = time.Minute

// workshop is a folder in the making: hidden, beside the place that it will have, and locked while its maker
// lives. What a killed maker leaves is removed by the next one.
type workshop struct {
	dir  string
	lock *os.File
}

// newWorkshop makes the folder that will become output.
func newWorkshop(output string) (*workshop, error) {
	parent, pattern := filepath.Dir(filepath.Clean(output)), "."+filepath.Base(output)+unfinished+"*"
	removeAbandoned(parent, pattern)
	dir, err := os.MkdirTemp(parent, pattern)
	if err != nil {
		return nil, err
	}
	lock, err := takeLock(filepath.Join(dir, lockFile), os.O_CREATE)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &workshop{dir, lock}, nil
}

// takeLock opens and locks a file without waiting. The lock ends with the process, however that ends.
func takeLock(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// removeAbandoned removes folders of makers that were killed. Best effort: what stays costs only space.
func removeAbandoned(parent, pattern string) {
	found, _ := filepath.Glob(filepath.Join(parent, pattern))
	for _, dir := range found {
		if abandoned(dir) {
			os.RemoveAll(dir)
		}
	}
}

func abandoned(dir string) bool {
	lock, err := takeLock(filepath.Join(dir, lockFile), 0)
	if err == nil {
		lock.Close()
		return true
	}
	info, statErr := os.Lstat(dir)
	return os.IsNotExist(err) && statErr == nil && info.IsDir() && time.Since(info.ModTime()) > abandonedAfter
}

// publish gives the folder its name. Until then it is nobody's snapshot.
func (w *workshop) publish(output string) error {
	for _, name := range []string{lockFile, runFolder} {
		if err := os.RemoveAll(filepath.Join(w.dir, name)); err != nil {
			return err
		}
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	if err := syncFolder(w.dir); err != nil {
		return err
	}
	return os.Rename(w.dir, output)
}

// Write makes a snapshot folder of what fill writes into dir, complete or not at all. The manifest that fill
// returns gets the files' sizes and digests.
func Write(ctx context.Context, output string, fill func(dir string) (Manifest, error)) (m Manifest, err error) {
	if _, err := os.Lstat(output); err == nil {
		return m, fmt.Errorf("%s: exists; choose another folder or remove it", output)
	}
	work, err := newWorkshop(output)
	if err != nil {
		return m, err
	}
	defer work.close()
	dir, err := filepath.Abs(work.dir)
	if err != nil {
		return m, err
	}
	if m, err = fill(dir); err != nil {
		return m, err
	}
	m.Version = manifestVersion
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		return m, err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && plainName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	if err := m.digestAll(ctx, dir, names); err != nil {
		return m, err
	}
	if err := m.write(dir); err != nil {
		return m, err
	}
	return m, work.publish(output)
}

// syncFolder makes the names of a folder survive a crash of the host.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// close removes what was not published.
func (w *workshop) close() {
	os.RemoveAll(w.dir) // gone already if all went well
	w.lock.Close()
}
