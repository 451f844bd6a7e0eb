package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

const (
	dmiTable = "/sys/firmware/dmi/tables/DMI"      // CONFIG_DMI; root only
	fwCfg    = "/sys/firmware/qemu_fw_cfg/by_name" // CONFIG_FW_CFG_SYSFS, module qemu_fw_cfg
	fwCfgMax = 4 << 20                             // no configuration is larger
	credPath = "opt/io.systemd.credentials"        // where systemd looks for them in fw_cfg
)

// Credentials are what the VMM hands to the guest in systemd's ways: SMBIOS type 11 strings and QEMU's fw_cfg files below
// opt/io.systemd.credentials; the latter win. Without either it is empty: that is no error.
func Credentials() (map[string][]byte, error) {
	table, err := os.ReadFile(dmiTable)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	out := credentials(oemStrings(table))
	files, err := FirmwareFiles(credPath)
	for name, b := range files {
		out[name] = b
	}
	return out, err
}

// FirmwareFiles reads QEMU's fw_cfg files (-fw_cfg name=opt/rouse/NAME,string=...) below a folder such as opt/rouse, by
// their names in it. Module qemu_fw_cfg must be loaded; without it there are none.
func FirmwareFiles(folder string) (map[string][]byte, error) {
	return readFirmware(os.DirFS(fwCfg), folder)
}

func readFirmware(fsys fs.FS, folder string) (map[string][]byte, error) {
	out := map[string][]byte{}
	// Files are links to folders: a glob follows them, a walk would not.
	for _, pattern := range []string{"*/raw", "*/*/raw"} {
		list, err := fs.Glob(fsys, path.Join(folder, pattern))
		if err != nil {
			return nil, fmt.Errorf("fw_cfg %s: %w", folder, err)
		}
		for _, name := range list {
			b, err := readRaw(fsys, path.Dir(name))
			if err != nil {
				return nil, err
			}
			out[path.Dir(name)[len(folder)+1:]] = b
		}
	}
	return out, nil
}

// FirmwareFile reads one of them by its whole name. The error is fs.ErrNotExist where there is none.
func FirmwareFile(name string) ([]byte, error) { return readRaw(os.DirFS(fwCfg), name) }

// HasFirmware tells whether there are files below a folder.
func HasFirmware(folder string) bool {
	_, err := os.Stat(path.Join(fwCfg, folder))
	return err == nil
}

func readRaw(fsys fs.FS, name string) (b []byte, err error) {
	st, err := fs.Stat(fsys, name+"/raw")
	if err == nil && st.Size() > fwCfgMax {
		err = fmt.Errorf("%d bytes, at most %d are read", st.Size(), fwCfgMax)
	}
	if err == nil {
		b, err = fs.ReadFile(fsys, name+"/raw")
	}
	if err != nil {
		return nil, fmt.Errorf("fw_cfg %s: %w", name, err)
	}
	return b, nil
}

// RereadFirmware makes the kernel read the list of fw_cfg files again. A copy runs in another QEMU, which may have been given others; the
// driver knows names, numbers and sizes from the time when it was loaded, and cannot be bound twice (drivers/firmware/qemu_fw_cfg.c
// fw_cfg_sysfs_probe, v6.12: EBUSY), so its module is loaded anew. One that is built in reads files that it knows by name afresh, up to the
// sizes that they had: a source that is given a file as large as its copies' will do, and is what the error advises.
func RereadFirmware() error {
	if err := unix.DeleteModule("qemu_fw_cfg", unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("fw_cfg: its list cannot be read again: module qemu_fw_cfg cannot be unloaded: %w; start the machine "+
			"that is copied with a file of the same name and size", err)
	}
	return LoadModules("", []string{"qemu_fw_cfg"})
}
