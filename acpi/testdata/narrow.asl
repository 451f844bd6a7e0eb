// 32-bit integers: where they are cut and where they are not.
// find \_SB.VGEN 0x100000018
// evaluate \AA \AB \AC \AD \AE \AF
// evaluate \AG \AH \AI \AJ \AK \AL
// evaluate \AM \AN \AO \AP \AQ \AR
// evaluate \AS \A2 \AT \AU \AV \AW
// evaluate \AX \AY \AZ \BA \BB \BC
// evaluate \BD \BE \BF \BG \BH
DefinitionBlock ("", "DSDT", 1, "ROUSE", "NARROW", 1)
{
    Name (N, 5)
    Name (X, 0xFFFFFFF0)
    Name (Q, 0x1122334455667788)
    Method (AA) { Local0 = X Local1 = (Local0 + 0x20) Local2 = (Local1 >> 4) Return (Local2) }
    Method (AB) { Local0 = X Return ((Local0 + 0x20) >> 4) }
    Method (AC) { Local0 = X N = (Local0 + 0x20) Return (N >> 4) }
    Method (AD) { Local0 = X If (Local0 + 0x10) { Return (1) } Return (2) }
    Method (AE) { Local0 = X Return ((Local0 + 0x10) == 0) }
    Method (AF) { Local0 = X Local1 = Package(2){} Local1[0] = (Local0 + 0x20) Local1[1] = Q Return (Local1) }
    Method (A1, 1) { Return (Arg0 >> 4) }
    Method (AG) { Local0 = X Return (A1(Local0 + 0x20)) }
    Method (AH) { Local0 = 0 Return (~Local0 >> 4) }
    Method (AI) { Local0 = 0 Return ((Local0 - 1) >> 4) }
    Method (AJ) { Local0 = Ones Local0++ Return (Local0 >> 4) }
    Method (AK) { Local0 = 1 Return ((Local0 == 1) >> 4) }
    Method (AL) { Local0 = X Local1 = Package(2){} Local1[0] = (Local0 << 8) Local1[1] = ~Local0 Return (Local1) }
    Method (AM) { Local0 = X Return (ToBuffer (Local0 + 0x20)) }
    Method (AN) { Local0 = X Return (Concatenate ("", Local0 + 0x20)) }
    Method (AO) { Local0 = X Return (FindSetLeftBit (Local0 + 0x20)) }
    Method (AP) { Local1 = Package(2){} Local2 = Q Local1[0] = Local2 Local1[1] = 0x1122334455667788 Return (Local1) }
    Method (AQ) { Local1 = Package(2){} Local0 = X Local2 = (Local0 + 0x20) Local1[0] = Local2 Return (Local1) }
    Method (AR) { Local0 = X While (Local0 + 0x10) { Return (1) } Return (2) }
    Method (AS) { Local0 = X Return ((Local0 + 0x10) && 1) }
    Method (A2) { Local0 = X Return (Local0 + 0x20) }
    Method (AT) { Return (A2() >> 4) }
    Method (AU) { Local0 = X Return (Package(){1, 2}) }
    Method (AV) { Local0 = X Return (Buffer(Local0 + 0x13){}) }
    Method (AW) { Local0 = X Local1 = (Local0 + 0x20) Return (ToBuffer (Local1)) }
    Method (AX) { Local0 = X Return (Concatenate (Local0 + 0x20, 1)) }
    Method (AY) { Local0 = X Divide (Local0 + 0x20, 3, Local1, Local2) Return (Local2) }
    Method (AZ) { Local0 = X CopyObject (Local0 + 0x20, N) Return (Package(){N}) }
    Method (BA) { Local0 = X Return ((Local0 * Local0) >> 4) }
    Method (BB) { Local0 = X Return ((Local0 + 0x20) % 7) }
    Method (BC) { Local0 = X Local1 = RefOf(N) N = 0 Local2 = Package(1){} Local2[0] = ToInteger("FFFFFFFF0") Return (Local2) }
    Method (BD) { Local2 = Package(1){} Local3 = "FFFFFFFFFF" Local2[0] = ToInteger(Local3) Return (Local2) }
    Method (BE) { Local2 = Package(1){} Local3 = Buffer(){1,2,3,4,5,6,7,8} Local2[0] = ToInteger(Local3) Return (Local2) }
    Method (BF) { Local3 = 0x12345678 Local2 = Package(1){} Local2[0] = ToBCD(Local3) Return (Local2) }
    Method (BG) { Local2 = Package(1){} Local2[0] = Ones Return (Local2) }
    Method (BH) { Local0 = 0 Local0-- Local2 = Package(1){} Local2[0] = Local0 Return (Local2) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0) { Local0 = Package (2) {} Local0 [0] = (X + 0x28) Local0 [1] = 0 Return (Local0) }
    }
}
