package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"rouse/rootfs/kmod"
)

// inKernelSince is the first release whose finit_module(2) takes compressed files (MODULE_INIT_COMPRESSED_FILE,
// include/uapi/linux/module.h, v5.17), if it was built with CONFIG_MODULE_DECOMPRESS.
var inKernelSince = [2]int{5, 17}

// decompresses tells whether modules are stored decompressed: as Spec says, and where it leaves that open, if their
// signature is to go, or the kernel is too old to do it.
func (b *builder) decompresses(release string) (bool, error) {
	switch b.spec.Decompress {
	case "yes":
		return true, nil
	case "no":
		return false, nil
	case "", "auto":
		major, minor := version(release)
		old := major < inKernelSince[0] || major == inKernelSince[0] && minor < inKernelSince[1]
		if _, err := exec.LookPath("xz"); err != nil && !old {
			b.warn("xz is not installed: modules stay compressed and signed, and load ten times slower; install xz-utils")
			return false, nil
		}
		return old || !b.spec.Signed, nil
	}
	return false, fmt.Errorf("unknown value %q for decompress; use auto, yes or no", b.spec.Decompress)
}

// version reads the two leading numbers of a kernel release such as 6.12.117+deb12-cloud-amd64. One without them is taken
// for new.
func version(release string) (major, minor int) {
	first, rest, _ := strings.Cut(release, ".")
	major, err := strconv.Atoi(first)
	if err != nil {
		return 1 << 16, 0
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	minor, _ = strconv.Atoi(rest[:end])
	return major, minor
}

// plainModule reads a module file, compressed or not. gzip and zstd need nothing; for xz there is no library here, so that the
// program xz must be installed.
func plainModule(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader
	switch format := kmod.Compression(file); format {
	case "":
		r = f
	case "gz":
		r, err = gzip.NewReader(f)
	case "zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(f); err == nil {
			defer z.Close()
		}
		r = z
	case "xz":
		return runXZ(f)
	default:
		return nil, fmt.Errorf("unknown compression %q", format)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func runXZ(in io.Reader) ([]byte, error) {
	var said bytes.Buffer
	c := exec.CommandContext(context.Background(), "xz", "--decompress", "--stdout")
	c.Stdin, c.Stderr = in, &said
	out, err := c.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%w; install xz-utils", err)
	}
	if err != nil {
		return nil, fmt.Errorf("xz: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return out, nil
}
