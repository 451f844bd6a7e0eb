package main

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"rouse/internal/json"
	"rouse/quiesce"
	"rouse/rootfs"
)

// kernelPart is the random pool, the clock and the names.
type kernelPart struct{ g *guest }

func (p kernelPart) Reseed(id string, seed []byte) (any, error) {
	m, err := p.g.pool.Reseed(id, seed)
	if m.Warning != "" {
		p.g.flow.Warn(m.Warning)
	}
	return m, err
}

// identity is what a host may hand over with rouse-resumed; all of it is optional.
type identity struct {
	Hostname   string              `json:"hostname"`
	MachineID  string              `json:"machine-id"`
	Interfaces []identityInterface `json:"interfaces"`
}

type identityInterface struct {
	Name string `json:"name"`
	// MAC is the new hardware address.
	MAC       string         `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"`
	Gateway4  netip.Addr     `json:"gateway4"`
	Gateway6  netip.Addr     `json:"gateway6"`
}

func (p kernelPart) Identify(_ context.Context, r quiesce.Resume) (any, error) {
	detail := map[string]any{}
	if r.TimeNS != 0 {
		ts := unix.NsecToTimespec(r.TimeNS)
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			return nil, fmt.Errorf("set the clock: %w", err)
		}
		detail["clock"] = "set by the host"
	}
	if len(r.Identity) == 0 {
		detail["identity"] = "kept: the host handed over none"
		return detail, nil
	}
	var id identity
	if err := json.Unmarshal(r.Identity, &id); err != nil {
		return nil, fmt.Errorf("identity from the host: %w", err)
	}
	detail["identity"] = id
	return detail, id.apply()
}

func (id identity) apply() error {
	if id.Hostname != "" {
		if err := rootfs.SetHostname(id.Hostname); err != nil {
			return err
		}
	}
	if id.MachineID != "" {
		if err := rootfs.SetMachineID(id.MachineID); err != nil {
			return err
		}
	}
	var interfaces []rootfs.Interface
	for _, i := range id.Interfaces {
		interfaces = append(interfaces, rootfs.Interface{Name: i.Name, SetMAC: i.MAC, Addresses: i.Addresses,
			Gateway4: i.Gateway4, Gateway6: i.Gateway6})
	}
	if len(interfaces) == 0 {
		return nil
	}
	return rootfs.ReplaceNetwork(interfaces)
}
