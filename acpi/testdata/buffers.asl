// Buffers, the fields cut out of them, and what they convert to.
// find \_SB.VGEN  0x123456789a
// evaluate \B1 \W1 \D1 \Q1 \BIT \F21
// evaluate \F72 \B2 \B3 \B4 \B5 \B6
// evaluate \B7 \B8 \B9 \BA \BB \BC
// evaluate \BD \BE \BF \BG \BH \BI
// evaluate \BJ \BK \BL
DefinitionBlock ("", "SSDT", 2, "ROUSE", "BUFFERS", 1)
{
    Name (BU, Buffer (16) { 0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE })
    CreateByteField (BU, 1, B1)
    CreateWordField (BU, 1, W1)
    CreateDWordField (BU, 1, D1)
    CreateQWordField (BU, 1, Q1)
    CreateBitField (BU, 5, BIT)
    CreateField (BU, 3, 21, F21)
    CreateField (BU, 4, 72, F72)
    Method (B2, 0) { D1 = 0x12345678 Return (BU) }
    Method (B3, 0) { BIT = 0 F21 = 0x1FFFFF Return (BU) }
    Method (B4, 0) { F72 = 1 Return (BU) }
    Method (B5, 0) { F72 = "xyz" Return (BU) }
    Method (B6, 0) { Local0 = Buffer (2) {} CreateWordField (Local0, 1, WX) Return (WX) }
    Method (B7, 0) { Local0 = Buffer (4) {} CreateWordField (Local0, 1, WY) WY = 0xABCD Return (Local0) }
    Method (B8, 0) { Local0 = 5 Local1 = Buffer (Local0) { 1 } Return (Local1) }
    Method (B9, 0) { BU = 0x55 Return (BU) }
    Method (BA, 0) { Return (Concatenate (BU, "ab")) }
    Method (BB, 0) { Return (Mid (BU, 2, 3)) }
    Method (BC, 0) { Return (Mid (BU, 20, 3)) }
    Method (BD, 0) { Return (BU == BU) }
    Method (BE, 0) { Return (Buffer () { 1, 2 } < Buffer () { 1, 3 }) }
    Method (BF, 0) { Return (Buffer () { 1, 2 } > Buffer () { 1 }) }
    Method (BG, 0) { Return (ToString (Buffer () { 0x41, 0x42, 0x43 }, 2)) }
    Method (BH, 0) { Return (ToDecimalString (Buffer () { 1, 20, 255 })) }
    Method (BI, 0) { Return (ToHexString (Buffer () { 1, 20, 255 })) }
    Method (BJ, 0) { Return (Concatenate ("x", Buffer () { 1, 0xAB })) }
    Method (BK, 0) { Local0 = Buffer (3) { 1, 2, 3, 4, 5 } Return (Local0) }
    Method (BL, 0) { Return (ToInteger (Buffer () { 1, 2, 3 })) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local1 = Buffer () { 0x9A, 0x78, 0x56, 0x34, 0x12, 0, 0, 0 }
            CreateDWordField (Local1, 0, LOW)
            CreateDWordField (Local1, 4, HIGH)
            Local0 = Package (2) {}
            Local0 [0] = LOW
            Local0 [1] = HIGH
            Return (Local0)
        }
    }
}
