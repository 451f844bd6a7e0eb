package config

// GuestModules are the kernel modules that rouse itself wants where they are not built in. An image
// holds those that its kernel has, and the guest loads those that its image holds, in this order.
func GuestModules() []string {
	return []string{
		"virtio_pci", "virtio_mmio", // the bus of everything below
		"virtio_console", // control channel
		"virtio_net",     // network
		"virtio_blk", "virtio_rng", "vsock", "vmw_vsock_virtio_transport",
		"fuse",                                                        // /dev/sysgenid
		"af_packet",                                                   // barrier, announcements
		"nf_tables", "nf_conntrack", "nft_ct", "nf_conntrack_netlink", // gate; flushing conntrack
		"inet_diag", "tcp_diag", "udp_diag", "raw_diag", "unix_diag", "af_packet_diag", "netlink_diag", // drain
		"qemu_fw_cfg",
	}
}
