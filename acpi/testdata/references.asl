// RefOf, DerefOf, CondRefOf, Index, CopyObject, Match, and stores through them.
// find \_SB.VGEN  0x9000
// evaluate \R1 \R2 \R3 \R4 \R5 \R6
// evaluate \R7 \R8 \R9 \RA \RB \RC
// evaluate \RD \RE \RF \RG \RH \RI
// evaluate \RJ \RK \RL \RM \RN \RO
// evaluate \RP \RQ \RR \RS \RT \RU
// evaluate \RV \RW \RZ \T0 \T1 \T2
// evaluate \T3 \T6 \T7 \T9 \TA \TB
// evaluate \T4 \T5 \RY
DefinitionBlock ("", "SSDT", 2, "ROUSE", "REFERENC", 1)
{
    Name (N, 5)
    Name (PK, Package () { 0x10, Package () { 2, 3 }, "four", 5 })
    Name (BU, Buffer () { 1, 2, 3, 4 })
    Name (ST, "abcd")
    Method (SET, 2) { Arg0 = Arg1 }
    Method (R1, 0) { SET (RefOf (N), 7) Return (N) }
    Method (R2, 0) { Local0 = 1 SET (RefOf (Local0), 8) Return (Local0) }
    Method (R3, 0) { Local0 = RefOf (N) Return (DerefOf (Local0) + 1) }
    Method (R4, 0) { Return (DerefOf (DerefOf (PK [1]) [1])) }
    Method (R5, 0) { Local0 = PK [0] DerefOf (Local0) = 0x77 Return (PK) }
    Method (R6, 0) { BU [2] = 0x1FF Return (BU) }
    Method (R7, 0) { ST [1] = 0x5A Return (ST) }
    Method (R8, 0) { Return (DerefOf (BU [3])) }
    Method (R9, 0) { If (CondRefOf (N, Local0)) { Return (DerefOf (Local0)) } Return (0xBAD) }
    Method (RA, 0) { If (CondRefOf (\NONE, Local0)) { Return (0xBAD) } Return (1) }
    Method (RB, 0) { Local0 = "\\N" Return (DerefOf (Local0)) }
    Method (RC, 0) { Local0 = PK Local0 [0] = 0x11 Return (DerefOf (PK [0])) }
    Method (RD, 0) { Return (PK [2]) }
    Method (RE, 0) { Local0 = PK [9] Return (1) }
    Method (RF, 0) { Local0 = Package (3) { 1 } Return (DerefOf (Local0 [2])) }
    Method (RG, 0) { Local0 = PK [0] Return (Local0 + 1) }
    Method (RH, 0) { CopyObject ("now text", N) Return (N) }
    Method (RI, 0) { CopyObject (9, N) N = "12" Return (N) }
    Method (RJ, 0) { Return (Package () { N, N }) }
    Method (RK, 0) { Return (ObjectType (PK)) }
    Method (RL, 0) { Return (ObjectType (\_SB)) }
    Method (RM, 0) { Local0 = PK [1] Return (ObjectType (Local0)) }
    Method (RN, 0) { Return (SizeOf (PK)) }
    Method (RO, 0) { Return (SizeOf (ST)) }
    Method (RP, 0) { PK = 5 Return (PK) }
    Method (RQ, 0) { PK = Package () { 6 } Return (PK) }
    Method (RR, 0) { Return (Match (Package () { 3, 1, 4, 1, 5, 9 }, MGT, 3, MLT, 9, 1)) }
    Method (RS, 0) { Return (Match (Package () { 3, 1, 4 }, MEQ, 7, MTR, 0, 0)) }
    Method (RT, 0) { Return (DerefOf (Index (PK, 0, Local1))) }
    Method (RU, 0) { Return (Local5) }
    Method (RV, 0) { }
    Method (RW, 0) { N = RV () Return (1) }
    Method (RZ, 0) { Local0 = RefOf (N) DerefOf (Local0) = 7 Return (N) }
    Method (T0, 0) { Local0 = RefOf (N) Local0 = 9 Return (N) }
    Method (T1, 0) { RefOf (N) = 0x66 Return (N) }
    Method (T2, 0) { Return (RefOf (N)) }
    Method (T3, 0) { T2 () = 0x67 Return (N) }
    Method (T6, 0) { N = 4 SET (RefOf (N), "conv") Return (N) }
    Method (T7, 0) { CopyObject (RefOf (PK), Local0) Return (DerefOf (Local0)) }
    Method (T9, 0) { Return (ObjectType (T2)) }
    Method (TA, 0) { If (CondRefOf (T2)) { Return (1) } Return (0) }
    Method (TB, 0) { Return (SizeOf (T2 ())) }
    Method (T4, 0) { Local0 = PK [0] DerefOf (Local0)++ Return (PK) }
    Method (T5, 0) { Local0 = RefOf (N) DerefOf (Local0)++ Return (N) }
    Method (RX, 1) { Return (DerefOf (Arg0) + 1) }
    Method (RY, 0) { N = 3 Return (RX (RefOf (N))) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (A, 0x9000)
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            Local1 = RefOf (A)
            Local0 [0] = DerefOf (Local1)
            Return (Local0)
        }
    }
}
