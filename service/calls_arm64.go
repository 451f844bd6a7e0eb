package service

import "golang.org/x/sys/unix"

// restful lists the system calls that count as rest. A program of 32 bits on this kernel has other
// numbers and is mistaken for restless: set its Settle to "off".
var restful = map[int]int{
	unix.SYS_EPOLL_PWAIT: restWaits, unix.SYS_EPOLL_PWAIT2: restWaits,
	unix.SYS_PPOLL: restWaits, unix.SYS_PSELECT6: restWaits,
	unix.SYS_FUTEX: restWaits, unix.SYS_FUTEX_WAITV: restWaits, unix.SYS_FUTEX_WAIT: restWaits,
	unix.SYS_NANOSLEEP: restWaits, unix.SYS_CLOCK_NANOSLEEP: restWaits, unix.SYS_RESTART_SYSCALL: restWaits,
	unix.SYS_RT_SIGSUSPEND: restWaits, unix.SYS_RT_SIGTIMEDWAIT: restWaits,
	unix.SYS_WAIT4: restWaits, unix.SYS_WAITID: restWaits,
	// A parent in vfork sleeps until its child executes; the child is looked at by itself.
	unix.SYS_CLONE: restWaits, unix.SYS_CLONE3: restWaits,
	unix.SYS_ACCEPT: restWaits, unix.SYS_ACCEPT4: restWaits, unix.SYS_CONNECT: restWaits,
	unix.SYS_RECVFROM: restWaits, unix.SYS_RECVMSG: restWaits, unix.SYS_RECVMMSG: restWaits,
	unix.SYS_SENDTO: restWaits, unix.SYS_SENDMSG: restWaits, unix.SYS_SENDMMSG: restWaits,
	unix.SYS_READ: restReads, unix.SYS_READV: restReads,
	unix.SYS_WRITE: restWaits, unix.SYS_WRITEV: restWaits, unix.SYS_SPLICE: restWaits, unix.SYS_SENDFILE: restWaits,
	unix.SYS_IO_GETEVENTS: restWaits, unix.SYS_IO_PGETEVENTS: restWaits, unix.SYS_IO_URING_ENTER: restWaits,
	unix.SYS_SEMOP: restWaits, unix.SYS_SEMTIMEDOP: restWaits, unix.SYS_MSGRCV: restWaits, unix.SYS_MSGSND: restWaits,
	unix.SYS_MQ_TIMEDRECEIVE: restWaits, unix.SYS_MQ_TIMEDSEND: restWaits,
	unix.SYS_FLOCK: restWaits, unix.SYS_FCNTL: restWaits,
}

// seccompNative is what struct seccomp_data has as arch for calls of this architecture.
const seccompNative = unix.AUDIT_ARCH_AARCH64
