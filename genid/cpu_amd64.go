package genid

import "golang.org/x/sys/cpu"

func hasCPURandom() bool { return cpu.X86.HasRDRAND }

// readCPURandom is one RDRAND; ok is its carry flag.
func readCPURandom() (v uint64, ok bool)
