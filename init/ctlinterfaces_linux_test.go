package main

import (
	"fmt"
	"net"
	"slices"
	"testing"
)

// What we read from netlink is what package net reads, of a machine that did not change meanwhile.
func TestInterfacesAgreeWithNet(t *testing.T) {
	for range 100 {
		before := netInterfaces(t)
		list, err := hostView{}.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(before, netInterfaces(t)) {
			continue
		}
		var ours []string
		for _, link := range list {
			mac := link.MAC
			ours = append(ours, "link "+link.Name)
			if i, err := net.InterfaceByName(link.Name); err == nil && i.HardwareAddr == nil {
				mac = "" // net leaves out what is all zeros
			}
			ours = append(ours, "mac "+mac)
			for _, a := range link.Addresses {
				ours = append(ours, fmt.Sprintf("%s %s/%d", a.Type, a.Address, a.Prefix))
			}
		}
		if !slices.Equal(ours, before) {
			t.Errorf("%q\nwant %q", ours, before)
		}
		return
	}
	t.Fatal("the machine's interfaces changed in each of 100 comparisons")
}

func netInterfaces(t *testing.T) (all []string) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		all = append(all, "link "+link.Name, "mac "+link.HardwareAddr.String())
		addresses, err := link.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			ip, network, err := net.ParseCIDR(a.String())
			if err != nil {
				t.Fatal(err)
			}
			kind := "ipv6"
			if ip.To4() != nil {
				kind = "ipv4"
			}
			ones, _ := network.Mask.Size()
			all = append(all, fmt.Sprintf("%s %s/%d", kind, ip, ones))
		}
	}
	return all
}
