package acpi

// Opcodes that other files name (ACPI 6.5, 20.3).
const (
	opLocal0  = 0x60
	opArg0    = 0x68
	opDerefOf = 0x83
	opIndex   = 0x88
	opElse    = 0xa1
	opDebug   = 0x5b31
)

func isLocal(c byte) bool { return c >= opLocal0 && c < opLocal0+8 }
func isArg(c byte) bool   { return c >= opArg0 && c < opArg0+7 }

// operator is one row of AML's grammar. Its operands are written as letters:
//
//	i  a term that is converted to an integer        uint64
//	v  a term that yields data                       value
//	a  a term taken as it is, references included     value
//	s  a place                                       *reference
//	r  a place, or the name of a method               *reference
//	t  a place or nothing                            *reference, nil
//	c  a place that need not exist                   *reference, nil
//	N  a name                                        namePath
//	Z  characters and a NUL                           *blob
//	P  the length of a block                         uint64, where it ends; the operator reads the rest
//	1, 2, 4, 8  a number of so many bytes            uint64
//
// The signature is all that is needed to step over a term without evaluating it.
type operator struct {
	name     string
	operands string
	run      func(m *machine, f *frame, a []value) (value, error)
}

// lookupOperator is the table. It is a switch, not a map: the functions in it reach back to it, and
// nothing has to be built before main runs. No row is a closure: looking one up allocates nothing.
func lookupOperator(code uint16) (operator, bool) {
	op := basicOperator(code)
	if op.run == nil {
		op = extendedOperator(code)
	}
	return op, op.run != nil
}

func basicOperator(code uint16) operator {
	switch code {
	case 0x00:
		return operator{"Zero", "", (*machine).opZero}
	case 0x01:
		return operator{"One", "", (*machine).opOne}
	case 0xff:
		return operator{"Ones", "", (*machine).opOnes}
	case 0x0a:
		return operator{"ByteConst", "1", literal}
	case 0x0b:
		return operator{"WordConst", "2", literal}
	case 0x0c:
		return operator{"DWordConst", "4", literal}
	case 0x0e:
		return operator{"QWordConst", "8", literal}
	case 0x0d:
		return operator{"String", "Z", first}
	case 0x11:
		return operator{"Buffer", "P", (*machine).opBuffer}
	case 0x12:
		return operator{"Package", "P", (*machine).opPackage}
	case 0x13:
		return operator{"VarPackage", "P", (*machine).opVarPackage}
	case 0x06:
		return operator{"Alias", "NN", (*machine).opAlias}
	case 0x08:
		return operator{"Name", "Na", (*machine).opName}
	case 0x10:
		return operator{"Scope", "P", (*machine).opScope}
	case 0x14:
		return operator{"Method", "P", (*machine).opMethod}
	case 0x15:
		return operator{"External", "N11", nothing}
	case 0x70:
		return operator{"Store", "as", (*machine).opStore}
	case 0x9d:
		return operator{"CopyObject", "as", (*machine).opCopyObject}
	case 0x71:
		return operator{"RefOf", "r", first}
	case opDerefOf:
		return operator{"DerefOf", "a", (*machine).opDerefOf}
	case opIndex:
		return operator{"Index", "vit", (*machine).opIndex}
	case 0x87:
		return operator{"SizeOf", "s", (*machine).opSizeOf}
	case 0x8e:
		return operator{"ObjectType", "r", (*machine).opObjectType}
	case 0x9f:
		return operator{"Continue", "", (*machine).opContinue}
	case 0xa5:
		return operator{"Break", "", (*machine).opBreak}
	case 0xa0:
		return operator{"If", "P", (*machine).opIf}
	case opElse:
		return operator{"Else", "P", (*machine).opStrayElse}
	case 0xa2:
		return operator{"While", "P", (*machine).opWhile}
	case 0xa4:
		return operator{"Return", "a", (*machine).opReturn}
	case 0xa3:
		return operator{"Noop", "", nothing}
	case 0xcc:
		return operator{"BreakPoint", "", nothing}
	case 0x86:
		return operator{"Notify", "si", nothing}
	case 0x8a:
		return operator{"CreateDWordField", "viN", (*machine).opCreateDWord}
	case 0x8b:
		return operator{"CreateWordField", "viN", (*machine).opCreateWord}
	case 0x8c:
		return operator{"CreateByteField", "viN", (*machine).opCreateByte}
	case 0x8d:
		return operator{"CreateBitField", "viN", (*machine).opCreateBit}
	case 0x8f:
		return operator{"CreateQWordField", "viN", (*machine).opCreateQWord}
	}
	return mathOperator(code)
}

func mathOperator(code uint16) operator {
	switch code {
	case 0x72:
		return operator{"Add", "iit", (*machine).opAdd}
	case 0x74:
		return operator{"Subtract", "iit", (*machine).opSubtract}
	case 0x77:
		return operator{"Multiply", "iit", (*machine).opMultiply}
	case 0x7b:
		return operator{"And", "iit", (*machine).opAnd}
	case 0x7c:
		return operator{"Nand", "iit", (*machine).opNand}
	case 0x7d:
		return operator{"Or", "iit", (*machine).opOr}
	case 0x7e:
		return operator{"Nor", "iit", (*machine).opNor}
	case 0x7f:
		return operator{"Xor", "iit", (*machine).opXor}
	case 0x79:
		return operator{"ShiftLeft", "iit", (*machine).opShiftLeft}
	case 0x7a:
		return operator{"ShiftRight", "iit", (*machine).opShiftRight}
	case 0x78:
		return operator{"Divide", "iitt", (*machine).opDivide}
	case 0x85:
		return operator{"Mod", "iit", (*machine).opMod}
	case 0x80:
		return operator{"Not", "it", (*machine).opNot}
	case 0x81:
		return operator{"FindSetLeftBit", "it", (*machine).opFindSetLeftBit}
	case 0x82:
		return operator{"FindSetRightBit", "it", (*machine).opFindSetRightBit}
	case 0x75:
		return operator{"Increment", "s", (*machine).opIncrement}
	case 0x76:
		return operator{"Decrement", "s", (*machine).opDecrement}
	case 0x90:
		return operator{"LAnd", "ii", (*machine).opLAnd}
	case 0x91:
		return operator{"LOr", "ii", (*machine).opLOr}
	case 0x92:
		return operator{"LNot", "i", (*machine).opLNot}
	case 0x93:
		return operator{"LEqual", "vv", (*machine).opLEqual}
	case 0x94:
		return operator{"LGreater", "vv", (*machine).opLGreater}
	case 0x95:
		return operator{"LLess", "vv", (*machine).opLLess}
	case 0x89:
		return operator{"Match", "v1v1vi", (*machine).opMatch}
	case 0x73:
		return operator{"Concatenate", "vvt", (*machine).opConcatenate}
	case 0x84:
		return operator{"ConcatenateResTemplate", "vvt", unsupported}
	case 0x96:
		return operator{"ToBuffer", "vt", (*machine).opToBuffer}
	case 0x97:
		return operator{"ToDecimalString", "vt", (*machine).opToDecimalString}
	case 0x98:
		return operator{"ToHexString", "vt", (*machine).opToHexString}
	case 0x99:
		return operator{"ToInteger", "vt", (*machine).opToInteger}
	case 0x9c:
		return operator{"ToString", "vit", (*machine).opToString}
	case 0x9e:
		return operator{"Mid", "viit", (*machine).opMid}
	}
	return operator{}
}

// extendedOperator has the opcodes behind the prefix 0x5b. Synchronisation always succeeds: there is
// one thread. Loading further tables is refused.
func extendedOperator(code uint16) operator {
	switch code {
	case 0x5b01:
		return operator{"Mutex", "N1", (*machine).opMutex}
	case 0x5b02:
		return operator{"Event", "N", (*machine).opEvent}
	case 0x5b12:
		return operator{"CondRefOf", "ct", (*machine).opCondRefOf}
	case 0x5b13:
		return operator{"CreateField", "viiN", (*machine).opCreateField}
	case 0x5b1f:
		return operator{"LoadTable", "vvvvvv", unsupported}
	case 0x5b20:
		return operator{"Load", "ss", unsupported}
	case 0x5b2a:
		return operator{"Unload", "s", unsupported}
	case 0x5b21:
		return operator{"Stall", "i", nothing}
	case 0x5b22:
		return operator{"Sleep", "i", nothing}
	case 0x5b23:
		return operator{"Acquire", "s2", (*machine).opZero}
	case 0x5b25:
		return operator{"Wait", "si", (*machine).opZero}
	case 0x5b24:
		return operator{"Signal", "s", nothing}
	case 0x5b26:
		return operator{"Reset", "s", nothing}
	case 0x5b27:
		return operator{"Release", "s", nothing}
	case 0x5b28:
		return operator{"FromBCD", "it", (*machine).opFromBCD}
	case 0x5b29:
		return operator{"ToBCD", "it", (*machine).opToBCD}
	case 0x5b30:
		return operator{"Revision", "", (*machine).opRevision}
	case opDebug:
		return operator{"Debug", "", unsupported}
	case 0x5b32:
		return operator{"Fatal", "14i", (*machine).opFatal}
	case 0x5b33:
		return operator{"Timer", "", (*machine).opTimer}
	case 0x5b80:
		return operator{"OperationRegion", "N1ii", (*machine).opRegion}
	case 0x5b81:
		return operator{"Field", "P", (*machine).opField}
	case 0x5b82:
		return operator{"Device", "P", (*machine).opDevice}
	case 0x5b83:
		return operator{"Processor", "P", (*machine).opProcessor}
	case 0x5b84:
		return operator{"PowerResource", "P", (*machine).opPower}
	case 0x5b85:
		return operator{"ThermalZone", "P", (*machine).opThermal}
	case 0x5b86:
		return operator{"IndexField", "P", (*machine).opIndexField}
	case 0x5b87:
		return operator{"BankField", "P", (*machine).opBankField}
	case 0x5b88:
		return operator{"DataTableRegion", "Nvvv", (*machine).opDataRegion}
	}
	return operator{}
}
