package config

// GuestModules are the kernel modules that rouse itself wants where they are not built in. An image
// holds those that its kernel has, and the guest loads those that its image holds, in this order.
func GuestModules() []string {
	return []string{
		// The bus of everything below, control channel, network, disks, random numbers.
		"virtio_pci", "virtio_mmio", "virtio_console", "virtio_net", "virtio_blk", "virtio_rng",
		"vsock", "vmw_vsock_virtio_transport",
		"qemu_fw_cfg",
		"fuse",      // /dev/sysgenid
		"af_packet", // barrier, announcements
		// The gate; firewall.Modules says what each is for.
		"nf_tables", "nft_meta_bridge", "nf_conntrack", "nft_ct", "sch_ingress", "cls_bpf",
		"nf_conntrack_netlink", // forgetting tracked connections
		// The drain.
		"inet_diag", "tcp_diag", "udp_diag", "raw_diag", "mptcp_diag", "unix_diag", "af_packet_diag", "netlink_diag", "vsock_diag",
	}
}
