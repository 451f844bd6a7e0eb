//go:build root

package sysgenid

import "golang.org/x/sys/unix"

const pollNumber = unix.SYS_POLL
