package genid

import "bytes"

// clonedText is what the kernel logs when its VMGenID driver has reseeded (drivers/char/random.c,
// add_vmfork_randomness, since Linux 5.18).
const clonedText = "random: crng reseeded due to virtual machine fork"

// isCloneRecord says that a record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg) is the kernel's word
// that this is a clone:
//
//	priority,sequence,microseconds,flags[,...];text\n KEY=VALUE\n...
//
// The priority holds the facility above its lowest 3 bits. Only the kernel writes as facility 0: what
// others write to /dev/kmsg is given another one. The text has to be equal, for some of what the kernel
// logs quotes its users.
func isCloneRecord(record []byte) bool {
	head, text, ok := bytes.Cut(record, []byte(";"))
	if !ok {
		return false
	}
	priority, _, ok := bytes.Cut(head, []byte(","))
	if !ok || len(priority) != 1 || priority[0] < '0' || priority[0] > '7' {
		return false
	}
	text, _, _ = bytes.Cut(text, []byte("\n"))
	return string(text) == clonedText
}

// isCloneUevent says that a uevent (action@path, then KEY=VALUE, each ended by a zero byte) carries the
// generation driver's NEW_VMGENID=1 (drivers/virt/vmgenid.c of Linux 6.8 only).
func isCloneUevent(event []byte) bool {
	for len(event) > 0 {
		var field []byte
		field, event, _ = bytes.Cut(event, []byte{0})
		if string(field) == "NEW_VMGENID=1" {
			return true
		}
	}
	return false
}
