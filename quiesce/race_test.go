//go:build race

package quiesce

// The race detector makes an exploration ten times slower and finds what it finds in few of its paths.
const standardDepth = 4
