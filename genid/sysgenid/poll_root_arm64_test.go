//go:build root

package sysgenid

const pollNumber = -1 // this architecture has ppoll only
