package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/json"
	"rouse/quiesce"
	"rouse/rootfs"
)

// kernelPart is the random pool, the clock and the names.
type kernelPart struct{ g *guest }

// Reseed mixes the new id into the kernel's pool. In a container that pool is the machine's: nothing was copied, and it
// is not ours to stir.
func (p kernelPart) Reseed(id string, seed []byte) (any, error) {
	if rootfs.Container() != "" {
		const skipped = "the random pool is the machine's, for which its own init has to reseed"
		p.g.flow.Warn("not reseeded: " + skipped)
		return map[string]string{"skipped": skipped}, nil
	}
	m, err := p.g.pool.Reseed(id, seed)
	if m.Warning != "" {
		p.g.flow.Warn(m.Warning)
	}
	return m, err
}

// identity is what a host hands over to a copy; all of it is optional. It is put together from what these say, of which later ones
// win, each for the keys that it has: the object "identity" in "rouse" of MMDS, QEMU's fw_cfg file opt/rouse/identity, and
// the identity of the command rouse-resumed.
type identity struct {
	Hostname string `json:"hostname"`
	// MachineID is 32 hexadecimal digits, or "random"; without it the machine id is kept.
	MachineID  string             `json:"machine-id"`
	Interfaces []rootfs.Interface `json:"interfaces"`
	// HostKeys are files of /etc/ssh by name. Without any, the keys that are there are set aside: see rootfs.SetHostKeys.
	HostKeys map[string]string `json:"ssh-host-keys,omitempty"`
}

// Identify makes the copy another machine than its twin, as far as the host says which. What cannot be done of what it says is an
// error, so that the gate stays shut: two machines with one address harm each other. Clock and boot id are renewed in any case; what
// fails of these is told and no more.
func (p kernelPart) Identify(_ context.Context, r quiesce.Resume) (any, error) {
	detail := map[string]any{}
	if rootfs.Container() == "" { // else both are the machine's
		detail["clock"] = p.g.stepClock(r.TimeNS)
		detail["boot-id"] = p.g.renewBootID()
	}
	id, from, err := p.gather(&r)
	if err != nil {
		return detail, err
	}
	defer p.g.leases.Moved() // with the new MAC, while nobody may ask yet
	if len(from) == 0 {
		detail["identity"] = "kept: the host handed over none"
		return detail, nil
	}
	aside, err := id.apply()
	id.HostKeys = nil // no secrets in a report
	detail["identity"], detail["from"] = id, from
	if len(aside) > 0 {
		detail["ssh-host-keys"] = fmt.Sprintf("set aside, as the host gave none: %v; make new ones (ssh-keygen -A) in an after-restore hook", aside)
	}
	return detail, err
}

// gather puts the identity together. A source that is not there says nothing; one that says what cannot be read is an error.
func (p kernelPart) gather(r *quiesce.Resume) (id *identity, from []string, err error) {
	id = &identity{}
	for n, name := range []string{"MMDS", "fw_cfg", "rouse-resumed"} {
		var text []byte
		switch {
		case n == 2:
			text = r.Identity
		case rootfs.Container() != "": // the others speak of the machine
		case n == 0:
			text, err = p.mmdsIdentity()
		default:
			text, err = p.firmwareIdentity()
		}
		if err == nil && len(text) > 0 {
			from = append(from, name)
			err = json.Unmarshal(text, id)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("identity from %s: %w", name, err)
		}
	}
	return id, from, nil
}

// mmdsIdentity asks on the first NIC. Nobody is asked on other VMMs, where the address may be a cloud's metadata service.
func (p kernelPart) mmdsIdentity() ([]byte, error) {
	if !p.g.firecracker {
		return nil, nil
	}
	b, err := rootfs.MMDS(&rootfs.Interface{}, "/rouse/identity")
	if errors.Is(err, fs.ErrNotExist) || err != nil && unreachable(err) {
		return nil, nil
	}
	return b, err
}

// unreachable is how a VMM without MMDS looks: nobody answers.
func unreachable(err error) bool {
	return errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EINPROGRESS) // of a connect that timed out
}

// firmwareIdentity takes the file of the QEMU that runs now. Where the twin's QEMU had other files of ours but none of this name, the
// list is read again: that loads the driver anew, which takes longer than all the rest of an adjust, so it is not done for
// machines that were never told anything in this way.
func (p kernelPart) firmwareIdentity() ([]byte, error) {
	const file = "opt/rouse/identity"
	text, err := rootfs.FirmwareFile(file)
	if errors.Is(err, fs.ErrNotExist) && rootfs.HasFirmware(path.Dir(file)) {
		if err := rootfs.RereadFirmware(); err != nil {
			p.g.flow.Warn("an identity from fw_cfg would not be seen: " + err.Error())
		}
		text, err = rootfs.FirmwareFile(file)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return bytes.TrimRight(text, "\x00 \n"), err // padding
}

func (g *guest) stepClock(fromHost int64) string {
	to, source, slack := time.Unix(0, fromHost), "the host's word", time.Duration(0)
	var err error
	if fromHost == 0 {
		if to, err = g.clock.Now(); err != nil { // it may have gone with the twin's VMM
			g.clock = rootfs.FindHostClock()
			to, err = g.clock.Now()
		}
		source, slack = g.clock.Path, g.clock.Slack
	}
	said := ""
	if err == nil {
		said, err = rootfs.StepClock(to, source, slack)
	}
	if err != nil {
		return "kept: " + err.Error()
	}
	return said
}

func randomID() string {
	var b [16]byte
	_, _ = unix.Getrandom(b[:], 0) // reseeded by now; 16 bytes are never cut short (random(7))
	return rootfs.MachineID(b)
}

func (g *guest) renewBootID() string {
	id := randomID()
	if err := g.bootID.Set(id); err != nil {
		return "kept: " + err.Error()
	}
	return id
}

// apply returns the ssh host keys that were set aside.
func (id *identity) apply() (aside []string, err error) {
	if id.Hostname != "" {
		err = errors.Join(rootfs.SetHostname(id.Hostname), rootfs.WriteHosts(id.Hostname))
	}
	if id.MachineID == "random" {
		id.MachineID = randomID()
	}
	if err == nil && id.MachineID != "" {
		err = rootfs.SetMachineID(id.MachineID)
	}
	if err == nil && len(id.Interfaces) > 0 {
		err = rootfs.ReplaceNetwork(id.Interfaces)
	}
	if err != nil {
		return nil, err
	}
	return rootfs.SetHostKeys(id.HostKeys)
}
