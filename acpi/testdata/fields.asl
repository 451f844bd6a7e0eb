// Fields of all widths and ways of access, stored and read back.
// find \_SB.VGEN  0x7654321
// evaluate \_SB.VGEN.ADDR \WR \F1 \F2 \F3 \F4
// evaluate \F5 \F6 \F7 \F8 \WIDE \G1
// evaluate \G2 \G3 \H1 \H2 \H3 \ONE1
// evaluate \ZER1 \ONE2 \ZER2 \LIM \SML \SML2
// evaluate \SRD
// fill 0x96
DefinitionBlock ("", "SSDT", 2, "ROUSE", "FIELDS", 1)
{
    OperationRegion (MEM, SystemMemory, 0x10000, 0x40)
    Field (MEM, ByteAcc, NoLock, Preserve) { F1, 4, F2, 12, F3, 1, , 3, F4, 33, F5, 64, F6, 7, Offset (0x20), F7, 8, F8, 16 }
    Field (MEM, ByteAcc, NoLock, Preserve) { WIDE, 200 }
    Field (MEM, DWordAcc, NoLock, Preserve) { , 5, G1, 30, G2, 40, AccessAs (WordAcc, 0), G3, 9 }
    OperationRegion (MEM2, SystemMemory, 0x20000, 0x40)
    Field (MEM2, WordAcc, NoLock, WriteAsOnes) { ONE1, 32, , 4, H1, 8 }
    Field (MEM2, WordAcc, NoLock, WriteAsOnes) { , 32, ONE2, 16 }
    Field (MEM2, DWordAcc, NoLock, WriteAsZeros) { Offset (0x10), , 4, H2, 8 }
    Field (MEM2, DWordAcc, NoLock, Preserve) { Offset (0x10), ZER1, 32, ZER2, 8, H3, 64 }
    OperationRegion (TINY, SystemMemory, 0x30000, 6)
    Field (TINY, ByteAcc, NoLock, Preserve) { , 32, SML, 16 }
    Field (TINY, ByteAcc, NoLock, Preserve) { SML2, 48 }
    Field (MEM, ByteAcc, NoLock, Preserve) { Offset (0x38), LIM, 64 }
    Method (WR, 0)
    {
        F2 = 0xABC
        F1 = 0xD
        F3 = 0
        F4 = 0x1FEDCBA98
        F5 = 0x1122334455667788
        F6 = 0xFF
        F7 = "A"
        F8 = Buffer () { 1, 2, 3 }
        G1 = 0x15555555
        H1 = 0x12
        H2 = 0x34
        H3 = Ones
        SML = 0x123456
        Return (G1)
    }
    Method (SRD, 0) { F7 = 0x55 Return (F7 + F8) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        OperationRegion (LOC, SystemMemory, 0x40000, 8)
        Field (LOC, DWordAcc, NoLock, Preserve) { PAD, 3, PTR, 40 }
        Method (ADDR, 0, NotSerialized)
        {
            PTR = 0x07654321
            Local0 = Package (2) { 0, 0 }
            Local0 [0] = PTR
            Return (Local0)
        }
    }
}
