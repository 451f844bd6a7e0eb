package main

import (
	"net"
	"testing"
)

// What we read from netlink is what package net reads.
func TestInterfacesAgreeWithNet(t *testing.T) {
	list, err := hostView{}.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != len(links) {
		t.Fatalf("%d interfaces, want %d", len(list), len(links))
	}
	for i, link := range links {
		addresses, err := link.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		if list[i].Name != link.Name || link.HardwareAddr != nil && list[i].MAC != link.HardwareAddr.String() || len(list[i].Addresses) != len(addresses) {
			t.Errorf("%+v, want %+v with %v", list[i], link, addresses)
			continue
		}
		for j, a := range addresses {
			own := list[i].Addresses[j]
			ip, network, err := net.ParseCIDR(a.String())
			if err != nil {
				t.Fatal(err)
			}
			ones, _ := network.Mask.Size()
			if own.Address != ip.String() || own.Prefix != ones || (own.Type == "ipv4") != (ip.To4() != nil) {
				t.Errorf("%+v, want %s", own, a)
			}
		}
	}
}
