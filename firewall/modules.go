package firewall

// Modules names the kernel modules that the rungs want, in an order in which
// they can be loaded; those that a kernel has built in or lacks are no matter.
// They are to be loaded before New: a resumed clone shuts its gate without a
// look at any file.
func Modules() []string {
	return []string{
		"nf_tables",       // nftables: all families' tables
		"nft_meta_bridge", // nftables: an interface in the allow list, for bridged frames
		"nf_conntrack",    // nftables: hold for UDP, where something tracks
		"nft_ct",          // the same
		"sch_ingress",     // tc: clsact
		"cls_bpf",         // tc: the classifier
	}
}
