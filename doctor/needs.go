package doctor

// needs is the table, in the order of the flow. Options were read from Kconfig and Makefiles of Linux 6.12.
var needs = []Need{
	{"boot", true, "nothing runs", []Way{
		{"early mounts", "PROC_FS SYSFS TMPFS DEVTMPFS", "/proc/self/stat", ""}}},
	{"generation", true, "a clone is noticed only if the host says rouse-resumed after every resume: one that is not told goes on as its twin", []Way{
		{"vmgenid page", "ACPI|OF DEVMEM !LOCK_DOWN_KERNEL_FORCE_INTEGRITY !LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY", "vmgenid", ""},
		{"vmclock", "PTP_1588_CLOCK_VMCLOCK", "vmclock", ""},
		{"sysgenid driver", "SYSGENID", "sysgenid", "the kernel's driver tells, some milliseconds after the resume"},
		{"vmgenid driver", "VMGENID", "kmsg|uevent", "the kernel's driver tells, some milliseconds after the resume"}}},
	{"notification", false, "a clone that was not quiesced runs unguarded for up to 250 ms: the page is looked at four times a second", []Way{
		{"vmgenid driver", "VMGENID", "prompt", ""},
		{"sysgenid driver", "SYSGENID", "prompt", ""}}},
	{"reseed", true, "a clone draws its twin's random numbers", []Way{
		{"ioctls of /dev/urandom", "", "reseed", ""}}},
	{"hardware randomness", false, "a clone's pool differs by the VMGenID, the clock and the processor's own generator only", []Way{
		{"virtio-rng", "HW_RANDOM_VIRTIO", "/dev/hwrng", ""}}},
	{"watchers", true, "/dev/sysgenid is a plain file: no service can acknowledge, and the gate opens without them", []Way{
		{"native", "SYSGENID", "native", ""},
		{"passthrough", "FUSE_FS FUSE_PASSTHROUGH", "passthrough", ""},
		{"pagecache", "FUSE_FS", "pagecache", "a bump goes through the page cache: some microseconds more for each mapping"}}},
	{"gate", true, "nothing keeps a clone from speaking with its twin's keys; no quiesce is possible", []Way{
		{"nftables", "NF_TABLES NF_TABLES_INET", "nftables", ""},
		{"cgroup", "CGROUP_BPF BPF_SYSCALL", "cgroup", "sees what sockets send and receive, not what is forwarded"},
		{"tc", "NET_SCH_INGRESS NET_CLS_BPF BPF_SYSCALL", "tc", "new links have to be noticed; senders are not told"},
		{"fib", "IP_MULTIPLE_TABLES IPV6_MULTIPLE_TABLES", "fib", "not atomic, knows no hold, packet sockets and ARP pass"}}},
	{"gate below IP", false, "ARP and packet sockets pass a shut gate: a clone's MAC is seen before it is adjusted", []Way{
		{"tc", "NET_SCH_INGRESS NET_CLS_BPF BPF_SYSCALL", "packetsockets", ""},
		{"nftables", "NF_TABLES_ARP", "arp", "packet sockets pass"}}},
	{"hold", false, "connections begin while the guest is drained: a quiesce takes longer or finds leftovers", []Way{
		{"new flows are refused", "NFT_CT|CGROUP_BPF|NET_CLS_BPF", "hold", ""}}},
	{"drain TCP", false, "", []Way{
		{"sock_diag", "INET_DIAG INET_TCP_DIAG", "tcp: sock_diag", ""},
		{"/proc/net", "PROC_FS", "tcp: /proc/net", "slower looks: 100 000 sockets take twice as long"}}},
	{"drain UDP", false, "", []Way{
		{"sock_diag", "INET_DIAG INET_UDP_DIAG", "udp: sock_diag", ""},
		{"/proc/net", "PROC_FS", "udp: /proc/net", "slower looks"}}},
	{"drain raw", false, "", []Way{
		{"sock_diag", "INET_DIAG INET_RAW_DIAG", "raw: sock_diag", ""},
		{"/proc/net", "PROC_FS", "raw: /proc/net", "slower looks"}}},
	{"drain unix", false, "bytes in unix sockets are not seen: two services of one guest may be frozen in mid-sentence", []Way{
		{"sock_diag", "UNIX_DIAG", "unix: sock_diag", ""},
		{"descriptors", "PROC_FS", "unix: descriptors", "each socket is duplicated from its owner to be asked"}}},
	{"drain packet", false, "", []Way{
		{"sock_diag", "PACKET_DIAG", "packet: sock_diag", ""},
		{"/proc/net", "PACKET PROC_FS", "packet: /proc/net", "slower looks"}}},
	{"drain qdisc", false, "what waits in front of a device is not seen; the barrier alone has to do", []Way{
		{"rtnetlink", "NET_SCHED", "qdisc: rtnetlink", ""}}},
	{"sever", true, "inherited connections outlive the clone: it and its twin send under the same keys", []Way{
		{"SOCK_DESTROY", "INET_DIAG INET_TCP_DIAG INET_DIAG_DESTROY", "destroy", ""},
		{"disconnect", "PROC_FS", "disconnect", "each socket is duplicated from its owner and disconnected, one by one"}}},
	{"conntrack", false, "tracked connections of the twin stay in the table until they time out", []Way{
		{"flushed by netlink", "NF_CT_NETLINK", "ctnetlink", ""},
		{"not tracked", "!NF_CONNTRACK", "untracked", ""}}},
	{"barrier", true, "packets on their way through the stack may land in a queue that was empty", []Way{
		{"packet socket", "PACKET", "/proc/net/packet", ""},
		{"membarrier", "MEMBARRIER", "membarrier", ""}}},
	{"announcement", false, "neighbours learn a clone's address only when it speaks", []Way{
		{"ARP and NA frames", "PACKET", "/proc/net/packet", ""}}},
	{"freezer", true, "services run on while the snapshot is taken", []Way{
		{"cgroup v2", "CGROUPS", "/sys/fs/cgroup/cgroup.controllers", ""}}},
	{"settle", false, "whether a thread was frozen in the middle of drawing random bytes is not known: settle = \"require\" refuses", []Way{
		{"/proc/PID/syscall", "PROC_FS HAVE_ARCH_TRACEHOOK", "/proc/self/syscall", ""}}},
	{"memory limits", false, "memory-max is refused, and a service can starve the others", []Way{
		{"cgroup v2", "MEMCG", "/sys/fs/cgroup/cgroup.controllers:memory", ""}}},
	{"cpu limits", false, "cpus is refused", []Way{
		{"cgroup v2", "CGROUP_SCHED CFS_BANDWIDTH", "/sys/fs/cgroup/cgroup.controllers:cpu", ""}}},
	{"process limits", false, "pids-max is refused: a fork bomb takes the guest with it", []Way{
		{"cgroup v2", "CGROUP_PIDS", "/sys/fs/cgroup/cgroup.controllers:pids", ""}}},
	{"seccomp", false, "seccomp = \"basic\" is refused", []Way{
		{"filters", "SECCOMP_FILTER", "/proc/sys/kernel/seccomp/actions_avail", ""}}},
	{"pressure", false, "nothing tells that the guest is short of memory", []Way{
		{"PSI", "PSI", "/proc/pressure/memory", ""}}},
	{"virtio-serial", false, "no control channel that survives a restore: vsock or the network has to do", []Way{
		{"virtio_console", "VIRTIO_PCI|VIRTIO_MMIO VIRTIO_CONSOLE", "/sys/class/virtio-ports", ""}}},
	{"vsock", false, "no control channel by vsock", []Way{
		{"virtio", "VSOCKETS VIRTIO_VSOCKETS", "/dev/vsock", ""}}},
	{"clock", false, "a clone's time is its twin's until the host tells rouse-resumed the time", []Way{
		{"ptp", "PTP_1588_CLOCK_VMCLOCK|PTP_1588_CLOCK_KVM", "/dev/ptp0", ""},
		{"rtc", "RTC_CLASS", "/dev/rtc0", "whole seconds"}}},
	{"fw_cfg", false, "no configuration by QEMU's -fw_cfg", []Way{
		{"sysfs", "FW_CFG_SYSFS", "/sys/firmware/qemu_fw_cfg", ""}}},
	{"credentials", false, "no configuration by SMBIOS type 11", []Way{
		{"DMI table", "DMI", "/sys/firmware/dmi/tables/DMI", ""}}},
	{"overlay", false, "no writable root over a read-only one", []Way{
		{"overlayfs", "OVERLAY_FS", "/proc/filesystems:overlay|module:overlay", ""}}},
	{"squashfs", false, "no root of squashfs", []Way{
		{"squashfs", "SQUASHFS", "/proc/filesystems:squashfs|module:squashfs", ""}}},
	{"ext4", false, "no root of ext4", []Way{
		{"ext4", "EXT4_FS", "/proc/filesystems:ext4|module:ext4", ""}}},
	{"modules", false, "what the kernel lacks cannot be added", []Way{
		{"loadable", "MODULES", "/proc/modules", ""}}},
	{"compressed modules", false, "modules have to be in the image uncompressed, as rouse build puts them", []Way{
		{"by the kernel", "MODULE_DECOMPRESS", "/sys/module/compression", ""}}},
}
