package main

import (
	"context"
	"errors"
	"time"

	"rouse/config"
	"rouse/internal/fmt"
	"rouse/rootfs"
)

// leaseTimeout is how long the start of services waits for the first addresses. Asking goes on afterwards.
const leaseTimeout = 10 * time.Second

// network brings up what the configuration and the kernel's ip= ask for. A guest whose address is wrong
// must not come up half: nobody would notice but its clients. One that is lent none yet is told of.
func (g *guest) network(ctx context.Context) error {
	if rootfs.Container() != "" {
		return nil // the runtime's
	}
	interfaces, resolver := plannedInterfaces(&g.cfg), rootfs.Resolver{Servers: g.cfg.Resolver.Servers, Search: g.cfg.Resolver.Search}
	hostname := g.cfg.Hostname
	for _, value := range rootfs.Cmdline()["ip"] {
		ip, err := rootfs.ParseIP(value)
		if err != nil {
			return fmt.Errorf("kernel command line: %w", err)
		}
		if planned(&ip) && len(g.cfg.Interfaces) == 0 {
			interfaces = append(interfaces, ip.Interface)
		}
		resolver.Servers = append(resolver.Servers, ip.DNS...)
		if hostname == "" {
			hostname = ip.Hostname
		}
	}
	if hostname != "" {
		if err := errors.Join(rootfs.SetHostname(hostname), rootfs.WriteHosts(hostname)); err != nil {
			return err
		}
	}
	if len(resolver.Servers) > 0 {
		if err := rootfs.WriteResolver(resolver); err != nil {
			return err
		}
	}
	if err := rootfs.ConfigureNetwork(interfaces); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return g.lease(ctx, interfaces, resolver)
}

// planned sets what the kernel's ip= asks for, and tells whether that is anything.
func planned(ip *rootfs.IPConfig) bool {
	switch ip.Method {
	case "on", "any", "dhcp":
		ip.Interface.DHCP4 = true
	case "both":
		ip.Interface.DHCP4, ip.Interface.Auto6 = true, true
	case "dhcp6", "auto6":
		ip.Interface.Auto6 = true
	}
	return ip.Static || ip.Interface.DHCP4 || ip.Interface.Auto6
}

func plannedInterfaces(cfg *config.Config) []rootfs.Interface {
	list := make([]rootfs.Interface, len(cfg.Interfaces))
	for n := range list {
		i, to := &cfg.Interfaces[n], &list[n]
		to.Name, to.MAC, to.MTU = i.Name, i.MAC, i.MTU
		to.Addresses, to.Gateway4, to.Gateway6 = i.Addresses, i.Gateway4, i.Gateway6
		to.DHCP4, to.Auto6 = i.DHCP == "ipv4" || i.DHCP == "both", i.DHCP == "ipv6" || i.DHCP == "both"
		for _, r := range i.Routes {
			to.Routes = append(to.Routes, rootfs.Route{Destination: r.To, Gateway: r.Via})
		}
	}
	return list
}

// lease asks for the addresses that are lent, and keeps them.
func (g *guest) lease(ctx context.Context, interfaces []rootfs.Interface, given rootfs.Resolver) error {
	wanted := false
	for i := range interfaces {
		wanted = wanted || interfaces[i].DHCP4 || interfaces[i].Auto6
	}
	if !wanted {
		return nil
	}
	g.loadModules([]string{"af_packet"}) // DHCP speaks before there is an address
	g.leases = rootfs.NewLeases(g.log.printf, given)
	if err := g.leases.Start(ctx, interfaces); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	if err := g.leases.Await(waiting); err != nil {
		g.problem("network: %v; asking goes on", err)
	}
	return nil
}
