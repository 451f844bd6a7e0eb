// Stores into bytes, fields and elements with integers of 32 bits.
// find \_SB.VGEN 0x8030
// evaluate \SA \SB \SC \SD \SE \SF
// evaluate \SG \SH \SI \SJ \SK
DefinitionBlock ("", "DSDT", 1, "ROUSE", "STORES32", 1)
{
    Name (PK, Package () { 0x10, "2" })
    Name (NB, Buffer () { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 })
    CreateField (NB, 12, 40, BQ)
    OperationRegion (RG, SystemMemory, 0x1000, 0x10)
    Field (RG, ByteAcc, NoLock, Preserve) { , 3, FA, 40 }
    Method (SA, 0) { NB [6] = "12" Return (NB) }
    Method (SB, 0) { NB [7] = Buffer () { 0x77, 1 } Return (NB) }
    Method (SC, 0) { NB [7] = "" Return (NB) }
    Method (SD, 0) { NB [7] = Package () { 1 } Return (NB) }
    Method (SE, 0) { BQ = (~Buffer () { 0xA1, 0xB4 }) Return (NB) }
    Method (SF, 0) { Local0 = 0xFFFFFFF0 FA = (Local0 + 0x20) Return (FA) }
    Method (SG, 0) { Return (SizeOf (FA)) }
    Method (SH, 0) { Return (SizeOf (BQ)) }
    Method (SI, 0) { Local0 = 0xFFFFFFF0 PK [0] = (Local0 + 0x20) Return (PK) }
    Method (SJ, 0) { FA = Ones FA++ Return (FA) }
    Method (SK, 0) { Return (Match (PK, MEQ, "2", MTR, 0, 0)) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0x8030, 0x0 })
    }
}
