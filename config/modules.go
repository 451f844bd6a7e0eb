package config

// GuestModules are the kernel modules that rouse itself wants where they are not built in. An image
// holds those that its kernel has, and the guest loads those that its image holds, in this order.
func GuestModules() []string { return append(BootModules(), GuardModules()...) }

// BootModules are loaded before the configuration is read: what it may come from, and what the first
// service needs.
func BootModules() []string {
	return []string{
		// The bus of everything below, network, disks.
		"virtio_pci", "virtio_mmio", "virtio_net", "virtio_blk", "virtio_rng",
		"qemu_fw_cfg",
		"fuse", // /dev/sysgenid
	}
}

// GuardModules are loaded while the first services start: the host channel, and what shuts and empties
// the guest. They take longer than all the rest of the boot.
func GuardModules() []string {
	return []string{
		"virtio_console", "vsock", "vmw_vsock_virtio_transport",
		"af_packet", // barrier, announcements
		// The gate; firewall.Modules says what each is for.
		"nf_tables", "nft_meta_bridge", "nf_conntrack", "nft_ct", "sch_ingress", "cls_bpf",
		"nf_conntrack_netlink", // forgetting tracked connections
		// The drain.
		"inet_diag", "tcp_diag", "udp_diag", "raw_diag", "mptcp_diag", "unix_diag", "af_packet_diag", "netlink_diag", "vsock_diag",
	}
}
