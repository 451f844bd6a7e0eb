package main

// views are the tables of the manual, in its order.
func views() []view {
	return []view{
		{suite: "init", title: "From the kernel's hand-over to the first service", metric: "handover", ours: "rouse", base: "tini", scale: 1, unit: "ms",
			text: "From the kernel's line \"Run ... as init process\" to the first instruction of the first service, both by the kernel's own clock, in the same guest and kernel; where guests are emulated, one instruction is one nanosecond (QEMU's -icount). " +
				"Each init has the smallest configuration that runs it; systemd neither journal nor udev. Only rouse mounts, brings the network up, finds the VM generation id and serves its device before."},
		{suite: "init", title: "Memory of the init with one service", metric: "pss-init", ours: "rouse", base: "tini", scale: 1, unit: "KiB",
			text: "Proportional set size of all processes that the init consists of."},
		{suite: "init", title: "Memory of the init with 51 services", metric: "pss-init", n: 50, ours: "rouse", base: "busybox init", scale: 1, unit: "KiB",
			text: "The same; only those that supervise more than one program."},
		{suite: "init", title: "Reaping 10000 orphans", metric: "reap", ours: "rouse", base: "tini", scale: 1, unit: "ms",
			text: "From the first fork until the last orphan is gone."},
		{suite: "init", title: "Size of the binaries", metric: "binary", ours: "rouse", base: "tini", scale: 1.0 / 1024, unit: "KiB",
			text: "What PID 1 executes, shared libraries not counted; tini is Debian's static build."},
		{suite: "gate", title: "Shutting and opening a gate", metric: "time", match: "Switch/", ours: "rouse", base: "rouse, nftables and tc (default)", scale: 1e-6, unit: "ms",
			labels: []label{{"rouse/nftables", "rouse, nftables alone"}, {"rouse/nftables+tc", "rouse, nftables and tc (default)"}, {"rouse/tc", "rouse, tc alone"},
				{"rouse/cgroup", "rouse, cgroup eBPF alone"}, {"rouse/cgroup+tc", "rouse, cgroup eBPF and tc"}, {"rouse/fib", "rouse, routing rules"},
				{"others/nft_-f", "nft -f, three chains"}, {"others/criu_by_nft", "CRIU's network lock, by nft"},
				{"others/iptables-restore", "iptables-restore, IPv4 alone"}, {"others/iptables_and_ip6tables", "iptables- and ip6tables-restore"}},
			text: "One operation shuts and opens, in a network namespace with two links; rouse's are both read back from the kernel. The others are loaded by their program, started anew, as scripts and CRIU do."},
		{suite: "gate", title: "Shutting alone, where others have rules or connections", metric: "time", match: "Shut/", n: 0, ours: "nftables", scale: 1e-6, unit: "ms",
			text: "Rouse's gate in a namespace with as many rules of somebody else, or connections."},
		{suite: "gate", title: "Packets through an open gate", metric: "time", match: "Packet/", ours: "", base: "never", scale: 1e-3, unit: "µs",
			text: "A round trip over a link: without rouse, with an open gate (no rule is left), and beside a table of others."},
		{suite: "sockets", title: "A look at n connections", metric: "look-cpu", n: -1, axis: "sockets", ours: "rouse", base: "rouse", scale: 1, unit: "ms of CPU",
			text: "One look of the drain at n idle connections from another network namespace, beside `ss -tan` (its start included, as scripts use it) and a loop in Go that reads /proc/net/tcp and tcp6 and does nothing but compare their columns. " +
				"Those two see TCP alone; rouse looks at UDP, unix, packet and other sockets and at what waits before devices in the same look. Empty, /proc/net/tcp takes ms all the same: the kernel walks its whole hash table. Ratios are against rouse."},
		{suite: "sockets", title: "Destroying n connections", metric: "destroy-cpu", n: -1, axis: "sockets", ours: "rouse", base: "rouse", scale: 1, unit: "ms of CPU",
			text: "What rouse does behind its gate after a resume: find every connection to a peer outside, end each by its cookie, look again; beside `ss -K`. Nothing in /proc destroys a socket. Both send a reset for each, which the other namespace's sockets get; that is in the time."},
		{suite: "namespaces", title: "A look at the sockets of n network namespaces", metric: "look-cpu", n: -1, axis: "network namespaces", ours: "rouse", base: "rouse", scale: 1, unit: "ms of CPU",
			text: "Namespaces without a connection, each joined to the guest's own by a veth link, as containers are; beside `ip -all netns exec ss -tan`. To list the netlink sockets of one namespace the kernel walks those of all, and each namespace has some: with many that is most of a look, and grows with the square."},
		{suite: "namespaces", title: "Shutting the gate of a guest with n network namespaces", metric: "shut-cpu", n: -1, axis: "network namespaces", ours: "rouse", base: "rouse", scale: 1, unit: "ms of CPU",
			text: "The default gate puts a program on each link beside its nftables rules and reads all of it back; `nft -f` loads three chains and sees no link."},
		{suite: "namespaces", title: "Opening the gate of a guest with n network namespaces", metric: "open-cpu", n: -1, axis: "network namespaces", ours: "rouse", base: "rouse", scale: 1, unit: "ms of CPU",
			text: "The way back, until nothing is left on any link."},
		{suite: "fanout", title: "A new generation until the last of n watchers has acknowledged, beside bare system calls", metric: "cpu-ratio", match: "Fanout/", n: -1, ours: "*", scale: 1, unit: "times the floor's CPU",
			labels: watcherLabels,
			text: "The floor does the same without a device: n threads, each woken by an eventfd of its own, and answering through a pipe. Threads here block in read(2) on the device or in poll(2); the device is served by FUSE, with its page passed through to a file (Linux 6.9) or from the page cache. " +
				"Of all processes that take part, so that the machine's load does not show."},
		{suite: "fanout", title: "CPU time of a new generation with n watchers", metric: "bump-cpu-ns", match: "Fanout/", n: -1, axis: "watchers", ours: "*", scale: 1e-6, unit: "ms of CPU",
			labels: watcherLabels,
			text:   "What stands behind the ratios: of the server and of all watchers."},
		{suite: "floor", title: "Beside bare system calls, an idle guest", metric: "ratio", n: 0, ours: "resume", scale: 1, unit: "times the floor",
			text: "What the phases ask of the kernel, by our packages beside a program in C that sends prepared bytes and keeps its descriptors open (bench/floor/floor.c), natively. Both look at the same sockets and queues, shut IP, ARP and bridges, and look at every thread before and after the freeze. " +
				"Rouse besides puts a program on every link, reads its gate back, and says what it found and whose it is: that is what the ratio pays for. Opening is what lets packets through; clear, after the resume, takes away what then stops nothing any more. Resume is sever, thaw and open. One service, no connection."},
		{suite: "floor", title: "Beside bare system calls, 10 services and 1000 sockets", metric: "ratio", n: 1000, ours: "resume", scale: 1, unit: "times the floor",
			text: "The same. The barrier is a grace period of the kernel's RCU for both. All connections are to the loopback, which both let the kernel leave out of sever."},
		{suite: "floor", title: "The time of each, an idle guest", metric: "time", n: 0, ours: "rouse", scale: 1e-3, unit: "µs",
			text: "What stands behind the ratios."},
		{suite: "freezer", title: "Freezing and thawing n services, natively", metric: "time", n: -1, axis: "services", ours: "rouse", base: "bare write: thaw", scale: 1e-6, unit: "ms",
			labels: []label{{"FreezeThaw", "rouse: freeze, prove and thaw"}, {"Settle", "rouse: prove that all rest"}, {"Thaw", "rouse: thaw"}, {"ThawFloor", "bare write: thaw"}},
			text:   "On this machine without emulation. To freeze includes the proof from /proc that every thread of every service rests; a thaw is one write to the kernel's file and its check."},
		{suite: "freeze", title: "Freezing a guest before its snapshot", metric: "freeze", ours: "rouse", base: "qemu-ga", scale: 1, unit: "ms",
			text: "From the request to its answer, in guests of the same kernel with 10 services and 4 file systems (ext4 in memory, each with 64 KiB to write), by the guest's clock; emulated guests count an instruction as a nanosecond. " +
				"The others are asked over their unix sockets in the guest. Of a guest that rouse has quiesced nothing runs that could look at a clock, so its time is that of its report and a guest-ping's round trip over its socket. " +
				"QEMU's guest agent (guest-fsfreeze-freeze) freezes file systems and lets every program run on. systemd (FreezeUnit on the bus for each unit, or `systemctl freeze` with all of them) freezes services and no file system. " +
				"Neither looks at the network. Rouse does all of it, in the phases below it: hold, drain, shut, barrier and verify are the network's, settle and freeze the services', sync the file systems'. sync(2) alone, which rouse calls first because not every file system can be frozen, was timed in the agent's guest. Nearly all that a file system takes is grace periods of RCU, for which the kernel waits in each freeze."},
		{suite: "freeze", title: "Thawing the same guest", metric: "thaw", ours: "rouse", base: "qemu-ga", scale: 1, unit: "ms",
			text: "Where no copy was made of it and the same machine goes on: guest-fsfreeze-thaw, ThawUnit, `systemctl thaw`, rouse-release. Rouse's phase thaw is services and file systems."},
		{suite: "freeze", title: "Freezing n services in a guest", metric: "freeze services", n: -1, axis: "services", ours: "rouse", base: "rouse", scale: 1, unit: "ms",
			text: "Rouse's phases settle and freeze, beside a method call to systemd for each unit, and one systemctl with all of them. Only rouse proves that no thread was frozen in the middle of something."},
		{suite: "freeze", title: "Thawing n services in a guest", metric: "thaw services", n: -1, axis: "services", ours: "rouse", base: "rouse", scale: 1, unit: "ms",
			text: "The way back; rouse's is with 4 file systems."},
		{suite: "freeze", title: "Freezing n file systems in a guest", metric: "freeze file systems", n: -1, axis: "file systems", ours: "rouse", base: "qemu-ga", scale: 1, unit: "ms",
			text: "Rouse's phase sync, beside guest-fsfreeze-freeze and sync(2) alone."},
		{suite: "bus", title: "A new generation until the last of n watchers has acknowledged, beside D-Bus", metric: "round", n: -1, axis: "watchers", ours: "rouse", base: "rouse", scale: 1, unit: "ms",
			text: "The device, served by a process of its own, beside the way of sysgenid's predecessor in user space: a signal on a message bus (dbus-daemon), and a method call of each watcher. Watchers are threads that block, up to 2000 in a process."},
		{suite: "e2e", title: "From the start of the VMM to the first HTTPS answer", metric: "first-answer", ours: "resume, rouse", base: "resume, plain init (unsafe)", scale: 1, unit: "ms",
			text: "The same server in the same guest: booted, and resumed from a snapshot whose memory is mapped. The plain init's resumed server is what safety is measured against: its answer is its twin's."},
		{suite: "e2e", title: "What the resume consists of", metric: "part", ours: "rouse adjusts", scale: 1, unit: "ms",
			text: "The same resume with the guest's instructions counted, at one a nanosecond where it is emulated. In the times above, the emulator translates some 40000 blocks of code for an adjust, each of which then runs once or twice; " +
				"hardware need not. The VMM's part is the host's own code in either case; the answer is from before the first packet until all is received, with the client's share."},
		{suite: "memory", title: "Size of a snapshot", metric: "size", base: "as it is", scale: 1.0 / (1 << 20), unit: "MiB",
			text: "What the snapshot of a small server (256 MiB guest) takes on the disk, with the options of `quiesce`."},
		{suite: "memory", title: "Page faults of rouse after a resume", metric: "minor-faults", base: "as it is", scale: 1, unit: "pages",
			text: "From the resume until the gate is open; none had to wait for a disk of the guest if the line below is missing."},
		{suite: "memory", title: "The adjust with each option", metric: "adjust", base: "as it is", scale: 1, unit: "ms",
			text: "From the resume until the gate is open, by the guest's clock."},
		{suite: "clones", title: "Until n clones are READY", metric: "ready", n: -1, axis: "clones", ours: "clones", scale: 1, unit: "ms",
			text: "Started at once, on the processors named below; emulation takes a processor for each."},
		{suite: "idle", title: "Wakeups of PID 1 in an idle guest", metric: "idle-wakeups", ours: "rouse", scale: 1, unit: "per second",
			text: "Over a minute, all threads, with one resting service."},
		{suite: "idle", title: "Processor time of PID 1 in an idle guest", metric: "idle-cpu", ours: "rouse", scale: 1, unit: "per mille of a core",
			text: "The same minute. Emulated guests count instructions, at one a nanosecond."},
	}
}

// watcherLabels are the ways in which a service may wait for a generation.
var watcherLabels = []label{{"read/passthrough", "read, passthrough"}, {"read/pagecache", "read, page cache"},
	{"poll/passthrough", "poll, passthrough"}, {"poll/pagecache", "poll, page cache"}}
