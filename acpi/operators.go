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
	code     uint16
	name     string
	operands string
}

// operators is the table, in the order of codes. Which function runs an operator is perform's: they reach back
// to the table.
var operators = [...]operator{
	{0x00, "Zero", ""},
	{0x01, "One", ""},
	{0x06, "Alias", "NN"},
	{0x08, "Name", "Na"},
	{0x0a, "ByteConst", "1"},
	{0x0b, "WordConst", "2"},
	{0x0c, "DWordConst", "4"},
	{0x0d, "String", "Z"},
	{0x0e, "QWordConst", "8"},
	{0x10, "Scope", "P"},
	{0x11, "Buffer", "P"},
	{0x12, "Package", "P"},
	{0x13, "VarPackage", "P"},
	{0x14, "Method", "P"},
	{0x15, "External", "N11"},
	{0x70, "Store", "as"},
	{0x71, "RefOf", "r"},
	{0x72, "Add", "iit"},
	{0x73, "Concatenate", "vvt"},
	{0x74, "Subtract", "iit"},
	{0x75, "Increment", "s"},
	{0x76, "Decrement", "s"},
	{0x77, "Multiply", "iit"},
	{0x78, "Divide", "iitt"},
	{0x79, "ShiftLeft", "iit"},
	{0x7a, "ShiftRight", "iit"},
	{0x7b, "And", "iit"},
	{0x7c, "Nand", "iit"},
	{0x7d, "Or", "iit"},
	{0x7e, "Nor", "iit"},
	{0x7f, "Xor", "iit"},
	{0x80, "Not", "it"},
	{0x81, "FindSetLeftBit", "it"},
	{0x82, "FindSetRightBit", "it"},
	{opDerefOf, "DerefOf", "a"},
	{0x84, "ConcatenateResTemplate", "vvt"},
	{0x85, "Mod", "iit"},
	{0x86, "Notify", "si"},
	{0x87, "SizeOf", "s"},
	{opIndex, "Index", "vit"},
	{0x89, "Match", "v1v1vi"},
	{0x8a, "CreateDWordField", "viN"},
	{0x8b, "CreateWordField", "viN"},
	{0x8c, "CreateByteField", "viN"},
	{0x8d, "CreateBitField", "viN"},
	{0x8e, "ObjectType", "r"},
	{0x8f, "CreateQWordField", "viN"},
	{0x90, "LAnd", "ii"},
	{0x91, "LOr", "ii"},
	{0x92, "LNot", "i"},
	{0x93, "LEqual", "vv"},
	{0x94, "LGreater", "vv"},
	{0x95, "LLess", "vv"},
	{0x96, "ToBuffer", "vt"},
	{0x97, "ToDecimalString", "vt"},
	{0x98, "ToHexString", "vt"},
	{0x99, "ToInteger", "vt"},
	{0x9c, "ToString", "vit"},
	{0x9d, "CopyObject", "as"},
	{0x9e, "Mid", "viit"},
	{0x9f, "Continue", ""},
	{0xa0, "If", "P"},
	{opElse, "Else", "P"},
	{0xa2, "While", "P"},
	{0xa3, "Noop", ""},
	{0xa4, "Return", "a"},
	{0xa5, "Break", ""},
	{0xcc, "BreakPoint", ""},
	{0xff, "Ones", ""},
	{0x5b01, "Mutex", "N1"},
	{0x5b02, "Event", "N"},
	{0x5b12, "CondRefOf", "ct"},
	{0x5b13, "CreateField", "viiN"},
	{0x5b1f, "LoadTable", "vvvvvv"},
	{0x5b20, "Load", "ss"},
	{0x5b21, "Stall", "i"},
	{0x5b22, "Sleep", "i"},
	{0x5b23, "Acquire", "s2"},
	{0x5b24, "Signal", "s"},
	{0x5b25, "Wait", "si"},
	{0x5b26, "Reset", "s"},
	{0x5b27, "Release", "s"},
	{0x5b28, "FromBCD", "it"},
	{0x5b29, "ToBCD", "it"},
	{0x5b2a, "Unload", "s"},
	{0x5b30, "Revision", ""},
	{opDebug, "Debug", ""},
	{0x5b32, "Fatal", "14i"},
	{0x5b33, "Timer", ""},
	{0x5b80, "OperationRegion", "N1ii"},
	{0x5b81, "Field", "P"},
	{0x5b82, "Device", "P"},
	{0x5b83, "Processor", "P"},
	{0x5b84, "PowerResource", "P"},
	{0x5b85, "ThermalZone", "P"},
	{0x5b86, "IndexField", "P"},
	{0x5b87, "BankField", "P"},
	{0x5b88, "DataTableRegion", "Nvvv"},
}

func lookupOperator(code uint16) (op operator, ok bool) {
	low, high := 0, len(operators)
	for low < high {
		if middle := (low + high) / 2; operators[middle].code < code {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low == len(operators) || operators[low].code != code {
		return op, false
	}
	return operators[low], true
}

// perform runs an operator of the table. Synchronisation always succeeds: there is one thread. Loading further
// tables is refused.
func (m *machine) perform(code uint16, f *frame, a []value) (value, error) {
	switch code {
	case 0x00, 0x5b23, 0x5b25: // Zero, Acquire, Wait
		return m.opZero(f, a)
	case 0x01: // One
		return m.opOne(f, a)
	case 0x06: // Alias
		return m.opAlias(f, a)
	case 0x08: // Name
		return m.opName(f, a)
	case 0x0a, 0x0b, 0x0c, 0x0e: // ByteConst, WordConst, DWordConst, QWordConst
		return literal(m, f, a)
	case 0x0d, 0x71: // String, RefOf
		return a[0], nil
	case 0x10: // Scope
		return m.opScope(f, a)
	case 0x11: // Buffer
		return m.opBuffer(f, a)
	case 0x12: // Package
		return m.opPackage(f, a)
	case 0x13: // VarPackage
		return m.opVarPackage(f, a)
	case 0x14: // Method
		return m.opMethod(f, a)
	case 0x15, 0x86, 0xa3, 0xcc, 0x5b21, 0x5b22, 0x5b24, 0x5b26, 0x5b27: // External, Notify, Noop, BreakPoint, Stall, Sleep, Signal, Reset, Release
		return nil, nil
	case 0x70: // Store
		return m.opStore(f, a)
	case 0x72, 0x74, 0x77, 0x79, 0x7a, 0x7b, 0x7c, 0x7d, 0x7e, 0x7f: // Add, Subtract, Multiply, ShiftLeft, ShiftRight, And, Nand, Or, Nor, Xor
		return m.integers(code, a)
	case 0x73: // Concatenate
		return m.opConcatenate(f, a)
	case 0x75: // Increment
		return m.opIncrement(f, a)
	case 0x76: // Decrement
		return m.opDecrement(f, a)
	case 0x78: // Divide
		return m.opDivide(f, a)
	case 0x80, 0x81, 0x82: // Not, FindSetLeftBit, FindSetRightBit
		return m.bits(code, a)
	case opDerefOf: // DerefOf
		return m.opDerefOf(f, a)
	case 0x84, 0x5b1f, 0x5b20, 0x5b2a, opDebug: // ConcatenateResTemplate, LoadTable, Load, Unload, Debug
		return nil, errUnsupported
	case 0x85: // Mod
		return m.opMod(f, a)
	case 0x87: // SizeOf
		return m.opSizeOf(f, a)
	case opIndex: // Index
		return m.opIndex(f, a)
	case 0x89: // Match
		return m.opMatch(f, a)
	case 0x8a, 0x8b, 0x8c, 0x8f: // CreateDWordField, CreateWordField, CreateByteField, CreateQWordField
		return m.cut(code, f, a)
	case 0x8d: // CreateBitField
		return m.opCreateBit(f, a)
	case 0x8e: // ObjectType
		return m.opObjectType(f, a)
	case 0x90, 0x91, 0x92: // LAnd, LOr, LNot
		return m.logical(code, a)
	case 0x93, 0x94, 0x95: // LEqual, LGreater, LLess
		return m.compares(code, a)
	case 0x96: // ToBuffer
		return m.opToBuffer(f, a)
	case 0x97: // ToDecimalString
		return m.opToDecimalString(f, a)
	case 0x98: // ToHexString
		return m.opToHexString(f, a)
	case 0x99: // ToInteger
		return m.opToInteger(f, a)
	case 0x9c: // ToString
		return m.opToString(f, a)
	case 0x9d: // CopyObject
		return m.opCopyObject(f, a)
	case 0x9e: // Mid
		return m.opMid(f, a)
	case 0x9f: // Continue
		return m.opContinue(f, a)
	case 0xa0: // If
		return m.opIf(f, a)
	case opElse: // Else
		return m.opStrayElse(f, a)
	case 0xa2: // While
		return m.opWhile(f, a)
	case 0xa4: // Return
		return m.opReturn(f, a)
	case 0xa5: // Break
		return m.opBreak(f, a)
	case 0xff: // Ones
		return m.opOnes(f, a)
	case 0x5b01: // Mutex
		return m.opMutex(f, a)
	case 0x5b02: // Event
		return m.opEvent(f, a)
	case 0x5b12: // CondRefOf
		return m.opCondRefOf(f, a)
	case 0x5b13: // CreateField
		return m.opCreateField(f, a)
	case 0x5b28: // FromBCD
		return m.opFromBCD(f, a)
	case 0x5b29: // ToBCD
		return m.opToBCD(f, a)
	case 0x5b30: // Revision
		return m.opRevision(f, a)
	case 0x5b32: // Fatal
		return m.opFatal(f, a)
	case 0x5b33: // Timer
		return m.opTimer(f, a)
	case 0x5b80: // OperationRegion
		return m.opRegion(f, a)
	case 0x5b81: // Field
		return m.opField(f, a)
	case 0x5b82: // Device
		return m.opDevice(f, a)
	case 0x5b83: // Processor
		return m.opProcessor(f, a)
	case 0x5b84: // PowerResource
		return m.opPower(f, a)
	case 0x5b85: // ThermalZone
		return m.opThermal(f, a)
	case 0x5b86: // IndexField
		return m.opIndexField(f, a)
	case 0x5b87: // BankField
		return m.opBankField(f, a)
	case 0x5b88: // DataTableRegion
		return m.opDataRegion(f, a)
	}
	return nil, errUnsupported
}
