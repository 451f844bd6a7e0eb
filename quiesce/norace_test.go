//go:build !race

package quiesce

const standardDepth = 6
