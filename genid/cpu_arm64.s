#include "textflag.h"

// func readCPURandom() (v uint64, ok bool)
TEXT ·readCPURandom(SB), NOSPLIT, $0-9
	MRS  RNDR, R0
	// Z is set when the register gave no number.
	CSET NE, R1
	MOVD R0, v+0(FP)
	MOVB R1, ok+8(FP)
	RET
