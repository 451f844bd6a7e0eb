// Package microvm drives Firecracker and Cloud Hypervisor by the HTTP APIs on their unix sockets: boot, quiesce
// the guest, pause, snapshot; load, override what each clone has of its own, resume.
//
// Both reach the guest by a vsock device whose host end is a unix socket that first wants a line "CONNECT port"
// (Firecracker's docs/vsock.md; Cloud Hypervisor took it over), so the guest's configuration needs control.vsock.
// Firecracker gives every load a new VM generation id by itself. Cloud Hypervisor has no such device: its
// clones are told their generation by rouse-resumed, and what they do before it is heard stays behind the gate
// that was shut before the snapshot.
//
// Neither runs without KVM. Where this was written there is none: every request is checked against the
// vendors' published API descriptions by a strict server in the tests, whose tables say from where, and the flow
// against that server. No real Firecracker or Cloud Hypervisor was run.
package microvm
