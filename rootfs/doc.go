// Package rootfs is the guest's early boot: what must be there before the first service can run, and what is undone last.
//
// The easy case, as PID 1 in this order: [MountEarly], [LoadModules], [MountLate], [EnableControllers],
// [ConfigureNetwork], [SetHostname]; services run; [PowerOff]. Everything may be called again: what is
// there already is left as it is, so the same code serves a kernel that mounted /dev by itself, a
// container, and the adjust phase of a clone that is given another hostname and other addresses.
//
// The race: drivers finish when they like. A NIC may appear after its module has been loaded, so
// ConfigureNetwork subscribes to link events before it looks, and waits for a bounded time. Nothing
// else here waits.
//
// The mechanism: tables and plans are values made by pure code (mount table, kernel command line, ip=,
// frames, resolv.conf), and thin functions in *_linux.go carry them out. Links and addresses go
// through netlink, modules through finit_module(2) without any modprobe, announcements as raw frames.
//
// Nothing in this package decides what is fatal. Every function does as much as it can, joins what went
// wrong, and the caller judges: a guest without NIC may be right, a guest without /proc is not.
package rootfs
