#include "textflag.h"

// func readCPURandom() (v uint64, ok bool)
TEXT ·readCPURandom(SB), NOSPLIT, $0-9
	RDRANDQ AX
	MOVQ    AX, v+0(FP)
	SETCS   ok+8(FP)
	RET
