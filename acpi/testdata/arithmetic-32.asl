// Every operator with the 32-bit integers of a DSDT of revision 1.
// find \_SB.VGEN  0x1028
// evaluate \X00 \X01 \X02 \X03 \X04 \X05
// evaluate \X06 \X07 \X08 \X09 \X10 \X11
// evaluate \X12 \X13 \X14 \X15 \X16 \X17
// evaluate \X18 \X19 \X20 \X21 \X22 \X23
// evaluate \X24 \X25 \X26 \X27 \X28 \X29
// evaluate \X30 \X31 \X32 \X33 \X34 \X35
// evaluate \X36 \X37 \X38 \X39
DefinitionBlock ("", "DSDT", 1, "ROUSE", "ARITHMET", 1)
{
    Method (X00, 0) { Local0 = 0xFFFFFFFF Return (Local0 + 0x1029) }
    Method (X01, 0) { Local0 = 0 Return (Local0 - 1) }
    Method (X02, 0) { Local0 = 0x89ABCDEF Return (Local0 * 0x76543211) }
    Method (X03, 0) { Local0 = 1000 Divide (Local0, 7, Local1, Local2) Return (Package () { 0, 0 }) }
    Method (X04, 0) { Local0 = 1000 Divide (Local0, 7, Local1, Local2) Return ((Local1 << 16) | Local2) }
    Method (X05, 0) { Local0 = 0 Return (5 / Local0) }
    Method (X06, 0) { Local0 = 1000 Return (Local0 % 7) }
    Method (X07, 0) { Local0 = 0 Return (5 % Local0) }
    Method (X08, 0) { Local0 = 0xF0F0 Return (Local0 & 0xFF00) }
    Method (X09, 0) { Local0 = 0xF0F0 Return (NAnd (Local0, 0xFF00)) }
    Method (X10, 0) { Local0 = 0xF0F0 Return (Local0 | 0xFF00) }
    Method (X11, 0) { Local0 = 0xF0F0 Return (NOr (Local0, 0xFF00)) }
    Method (X12, 0) { Local0 = 0xF0F0 Return (Local0 ^ 0xFF00) }
    Method (X13, 0) { Local0 = 0xF0F0 Return (~Local0) }
    Method (X14, 0) { Local0 = 0xF0F0F0F0 Return (Local0 << 8) }
    Method (X15, 0) { Local0 = 1 Return (Local0 << 32) }
    Method (X16, 0) { Local0 = 1 Return (Local0 << 64) }
    Method (X17, 0) { Local0 = 1 Local1 = 0xFFFFFFFF Return (Local0 << Local1) }
    Method (X18, 0) { Local0 = 0xF0F0F0F0 Return (Local0 >> 8) }
    Method (X19, 0) { Local0 = Ones Return (Local0 >> 32) }
    Method (X20, 0) { Local0 = Ones Return (Local0 >> 63) }
    Method (X21, 0) { Local0 = 0x12340 Return (FindSetLeftBit (Local0)) }
    Method (X22, 0) { Local0 = 0 Return (FindSetLeftBit (Local0)) }
    Method (X23, 0) { Local0 = 0x12340 Return (FindSetRightBit (Local0)) }
    Method (X24, 0) { Local0 = 0 Return (FindSetRightBit (Local0)) }
    Method (X25, 0) { Local0 = Ones Local0++ Return (Local0) }
    Method (X26, 0) { Local0 = 0 Local0-- Return (Local0) }
    Method (X27, 0) { Return (Ones) }
    Method (X28, 0) { Return (0x123456789ABCDEF0) }
    Method (X29, 0)
    {
        Local0 = 5
        Local1 = 0
        If (Local0 == 5) { Local1 |= 1 }
        If (Local0 != 5) { Local1 |= 2 }
        If (Local0 > 4) { Local1 |= 4 }
        If (Local0 >= 6) { Local1 |= 8 }
        If (Local0 < 6) { Local1 |= 16 }
        If (Local0 <= 4) { Local1 |= 32 }
        If ((Local0 == 5) && (Local1 == 0)) { Local1 |= 64 }
        If ((Local0 == 5) || (Local1 == 0)) { Local1 |= 128 }
        If (!Local0) { Local1 |= 256 }
        Return (Local1)
    }
    Method (X30, 0) { Local0 = 5 Return (Local0 == 5) }
    Method (X31, 0) { Local0 = 1234 Return (ToBCD (Local0)) }
    Method (X32, 0) { Local0 = 0x1234 Return (FromBCD (Local0)) }
    Method (X33, 0) { Local0 = "99999999999999999999999" Return (ToInteger (Local0)) }
    Method (X34, 0) { Local0 = "FEDCBA9876543210" Return (Local0 + 0) }
    Method (X35, 0) { Local0 = Buffer () { 1, 2, 3, 4, 5, 6, 7, 8, 9 } Return (Local0 + 0) }
    Method (X36, 0) { Local0 = 0xAB Return (ToHexString (Local0)) }
    Method (X37, 0) { Local0 = 0xAB Return (ToBuffer (Local0)) }
    Method (X38, 0) { Local0 = 0xAB Return (SizeOf (Local0)) }
    Method (X39, 0) { Local0 = 1 Local1 = 2 Return (Concatenate (Local0, Local1)) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) {}
            Local0 [0] = X00 ()
            Local0 [1] = X19 ()
            Return (Local0)
        }
    }
}
