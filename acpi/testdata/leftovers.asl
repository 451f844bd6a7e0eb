// What the other samples left: Match, ObjectType, synchronisation, refusals.
// find \_SB.VGEN 0x8020
// evaluate \ZMA \ZMB \ZMC \ZMD \ZME \ZMF
// evaluate \ZMG \ZMH \ZRV \ZTI \ZWA \ZOA
// evaluate \ZOB \ZOC \ZOD \ZOE \ZOF \ZOG
// evaluate \ZOH \ZOI \ZOJ \ZOK \ZOS \ZOX
// evaluate \ZOY \ZOZ \ZCO \ZCP \ZDS \ZDT
// evaluate \ZMI \ZCT \ZSZ \ZCM \ZIN \ZIX
// evaluate \ZSB \ZD1 \ZNE
DefinitionBlock ("", "SSDT", 2, "ROUSE", "LEFTOVER", 1)
{
    Mutex (MUTX, 0)
    Event (EVNT)
    OperationRegion (OPRG, SystemMemory, 0x1000, 4)
    Name (BU, Buffer () { 1, 2, 3, 4 })
    CreateByteField (BU, 1, BFLD)
    CreateField (BU, 0, 12, BFL0)

    Name (PK, Package () { 1, 5, 9, "5", Buffer () { 5 }, 7 })
    Method (ZMA, 0) { Return (Match (PK, MTR, 0, MTR, 0, 2)) }
    Method (ZMB, 0) { Return (Match (PK, MEQ, 5, MTR, 0, 0)) }
    Method (ZMC, 0) { Return (Match (PK, MLE, 9, MGE, 6, 0)) }
    Method (ZMD, 0) { Return (Match (PK, MLT, 2, MTR, 0, 0)) }
    Method (ZME, 0) { Return (Match (PK, MGT, 5, MLT, 9, 0)) }
    Method (ZMF, 0) { Return (Match (PK, MEQ, 5, MTR, 0, 2)) }
    Method (ZMG, 0) { Return (Match (PK, MEQ, 5, MTR, 0, 9)) }
    Method (ZMH, 0) { Return (Match (PK, MEQ, "5", MTR, 0, 0)) }
    Method (ZRV, 0) { Return (Revision) }
    Method (ZTI, 0) { Local0 = Timer While (Timer < (Local0 + 1000)) { Stall (1) } Return (1) }
    Method (ZFA, 0) { Fatal (1, 2, 3) Return (1) }
    Method (ZWA, 0) { Acquire (MUTX, 0xFFFF) Local0 = Wait (EVNT, 0) Release (MUTX) Return (ObjectType (MUTX)) }
    Method (ZOT, 1) { Return (ObjectType (Arg0)) }
    Method (ZOA, 0) { Return (ObjectType (EVNT)) }
    Method (ZOB, 0) { Return (ObjectType (OPRG)) }
    Method (ZOC, 0) { Return (ObjectType (BFLD)) }
    Method (ZOD, 0) { Return (ObjectType (BFL0)) }
    Method (ZOE, 0) { Return (ObjectType (Debug)) }
    Method (ZOF, 0) { Return (ObjectType (\_SB)) }
    Method (ZOG, 0) { Return (ObjectType (PK [3])) }
    Method (ZOH, 0) { Return (ObjectType (\_OSI)) }
    Method (ZOI, 0) { Return (ZOT (PK)) }
    Method (ZOJ, 0) { Return (ZOT (RefOf (PK))) }
    Method (ZOK, 0) { Return (ObjectType (Local3)) }
    Method (ZOS, 0) { Return (_OSI ("Windows 2009")) }
    Method (ZOX, 0) { Return (_OSI ("Darwin")) }
    Method (ZOY, 0) { Return (_OSI ("Module Device")) }
    Method (ZOZ, 0) { Return (_OS) }
    Method (ZCO, 0) { BFLD = 0x7F CopyObject (0x55, BFLD) Return (BU) }
    Method (ZCP, 0) { CopyObject (PK, BU) Return (SizeOf (BU)) }
    Method (ZDS, 0) { Local0 = "NOPE" Return (DerefOf (Local0)) }
    Method (ZDT, 0) { Local0 = 5 Return (DerefOf (Local0)) }
    Method (ZMI, 0) { Local0 = 0x41424344 Return (Mid (Local0, 1, 2)) }
    Method (ZCT, 0) { Local0 = Package () { 1 } Return (Concatenate (Local0, "x")) }
    Method (ZSZ, 0) { Return (SizeOf (\_SB)) }
    Method (ZCM, 0) { Return (PK == 1) }
    Method (ZIN, 0) { Local0 = "7F" Local0++ Return (Local0) }
    Method (ZIX, 0) { Local0 = 5 Return (Local0 [0]) }
    Method (ZSB, 0) { BU [0] = "12" Return (BU) }
    Method (ZD1, 0) { Debug = "seen" Return (1) }
    Method (ZNE, 0) { If (1 != 2) { Return (LNotEqual (3, 3)) } Return (9) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0x8020, 0x0 })
    }
}
