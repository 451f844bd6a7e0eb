package vmm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// verifiedFile holds marks of files whose digests were checked, beside them. Its name is none that a manifest
// may have.
const verifiedFile = ".verified"

// mark is a file as it was when its digest was checked. The change time moves with every write, rename or
// link and cannot be set; the inode tells a copy from what it was copied from.
type mark struct {
	Device, Inode        uint64
	Size                 int64
	ModifiedNS, ChangeNS int64
	SHA256               string
}

func markOf(path, digest string) (mark, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return mark{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return mark{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), digest}, nil
}

// Verify reads every file of a snapshot and compares it with its digest. A file that was verified before and
// has not changed since is not read again: the mark of it is kept in the folder if that can be written.
func (m Manifest) Verify(ctx context.Context, dir string) error {
	known := readMarks(dir)
	marks, fresh := map[string]mark{}, false
	var mu sync.Mutex
	err := inParallel(len(m.Files), func(i int) error {
		name := m.Names()[i]
		now, err := markOf(filepath.Join(dir, name), m.Files[name].SHA256)
		if err != nil {
			return err
		}
		if known[name] != now {
			if err := m.verifyFile(ctx, dir, name); err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		marks[name], fresh = now, fresh || known[name] != now
		return nil
	})
	if err == nil && fresh {
		writeMarks(dir, marks)
	}
	return err
}

func (m Manifest) verifyFile(ctx context.Context, dir, name string) error {
	path := filepath.Join(dir, name)
	got, err := digest(ctx, path)
	if err != nil {
		return err
	}
	if want := m.Files[name].SHA256; got != want {
		return fmt.Errorf("%s: sha256 is %s, the manifest says %s; it was changed or damaged: fetch or bake it again", path, got, want)
	}
	return nil
}

// Names are the files in a fixed order.
func (m Manifest) Names() []string { return sortedKeys(m.Files) }

// digestAll fills in the files of a snapshot that has just been written, and leaves their marks.
func (m *Manifest) digestAll(ctx context.Context, dir string, names []string) error {
	m.Files = map[string]File{}
	marks := map[string]mark{}
	var mu sync.Mutex
	err := inParallel(len(names), func(i int) error {
		path := filepath.Join(dir, names[i])
		sum, err := digest(ctx, path)
		if err != nil {
			return err
		}
		k, err := markOf(path, sum)
		mu.Lock()
		defer mu.Unlock()
		m.Files[names[i]], marks[names[i]] = File{k.Size, sum}, k
		return err
	})
	if err == nil {
		writeMarks(dir, marks)
	}
	return err
}

func readMarks(dir string) map[string]mark {
	var marks map[string]mark
	text, err := os.ReadFile(filepath.Join(dir, verifiedFile))
	if err != nil || json.Unmarshal(text, &marks) != nil {
		return nil // then everything is read
	}
	return marks
}

// writeMarks is best effort: a folder that cannot be written is verified each time.
func writeMarks(dir string, marks map[string]mark) {
	text, err := json.Marshal(marks)
	if err != nil {
		return
	}
	f, err := os.CreateTemp(dir, verifiedFile+".*")
	if err != nil {
		return
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(text)
	if f.Close() == nil && err == nil {
		_ = os.Rename(f.Name(), filepath.Join(dir, verifiedFile))
	}
}

func digest(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, cancelled{ctx, f}, make([]byte, 1<<20)); err != nil {
		return "", fmt.Errorf("digest %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// cancelled is a reader that a context ends.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
