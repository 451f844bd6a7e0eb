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
		{suite: "gate", title: "Shutting and opening a gate", metric: "time", match: "Switch/", ours: "rouse", base: "rouse/nftables", scale: 1e-6, unit: "ms",
			text: "One operation shuts and opens; ours are both read back from the kernel."},
		{suite: "gate", title: "Packets through an open gate", metric: "time", match: "Packet/", ours: "", base: "never", scale: 1e-3, unit: "µs",
			text: "A round trip over a link: without rouse, with an open gate (no rule is left), and beside a table of others."},
		{suite: "sockets", title: "Looking at all sockets", metric: "cpu-ns", match: "Busy", n: -1, base: "", scale: 1e-6, unit: "ms of CPU",
			text: "One look of the drain over n idle connections."},
		{suite: "sockets", title: "The same by ss", metric: "ss-cpu-ns", match: "Busy", n: -1, scale: 1e-6, unit: "ms of CPU",
			text: "`ss -tanH` for the same sockets."},
		{suite: "fanout", title: "A new generation until the last watcher has acknowledged", metric: "ratio", match: "Fanout/", n: -1, scale: 1, unit: "times the floor",
			text: "The floor is an eventfd per watcher, woken and answered through pipes."},
		{suite: "freezer", title: "Freezing and thawing services", metric: "time", match: "", n: -1, scale: 1e-6, unit: "ms",
			text: "n services, the whole of it beside the bare writes to the kernel's files (Floor)."},
	}
}
