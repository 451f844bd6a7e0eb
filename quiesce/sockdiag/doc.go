// Package sockdiag tells what every socket of a Linux guest still holds, and destroys sockets.
//
// The easy case: an idle guest. One look asks the kernel for its sockets by sock_diag, finds no byte in
// any queue and returns nothing, in well under a millisecond, without reading /proc/*/fd and without
// an allocation per socket:
//
//	ins, err := sockdiag.New(sockdiag.Options{})
//	busy, err := ins.Busy(ctx) // empty: nothing is in any queue
//
// The race: a look is no instant. The kernel walks one hash table after another while services run, so
// bytes that a service moves from a queue not yet walked into one already walked are seen in neither.
// inet_diag does not even flag such a dump as torn. An empty look is therefore a hint, and becomes proof
// only when nothing can move any more: [Inspector.Wait] wants two empty looks in a row, and the flow that
// uses this package looks once more behind the shut gate and the barrier. Bytes that a service has read
// and not yet dealt with are in no queue at all; freezing services at rest is what covers those.
//
// The mechanism: NETLINK_SOCK_DIAG dumps with every state bit that can hold something, request sockets
// (half-open connections, state bit 12) among them; RTM_GETQDISC for what waits in front of a device;
// where a diag module is missing, the files of /proc/net, and for what those do not show a duplicate of the
// owner's descriptor taken with pidfd_getfd, which lives for microseconds. [Inspector.Sources] tells which source serves
// which protocol.
// The kernel's filter (INET_DIAG_REQ_BYTECODE) knows addresses and ports but no queue lengths, so a look at the queues
// has to be handed every live socket; what the filter can do, leaving out loopback connections, it does for
// [Inspector.Inherited].
//
// Some things no table shows. What waits in the memory-mapped ring of a packet socket, in io_uring, in a BPF sockmap or in
// a process is not seen at all. Pipes, vsock and TCP sockets closed by both sides with bytes unread are seen only if asked
// for ([Options]), for finding them takes a pass over all descriptors.
//
// What counts as busy is decided in one place, rule.go, with the reason beside each rule. A drain must end, so
// what merely exists does not count: idle connections, TIME_WAIT, a peer's FIN that nobody has read yet; nor what a gate lets
// through in every state ([Options].Allowed), which goes on while all else drains.
package sockdiag
