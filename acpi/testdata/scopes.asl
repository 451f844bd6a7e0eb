// Name resolution: upwards for one segment only, exact paths, parents, the root.
// find \_SB.A.B.VGEN  0x44332211
// evaluate \_SB.A.B.VGEN.ADDR \_SB.A.B.M1 \_SB.A.B.M2 \_SB.A.B.M3 \_SB.A.B.M4 \_SB.A.B.M5
// evaluate \_SB.A.B.M6 \_SB.A.B.M7
DefinitionBlock ("", "SSDT", 2, "ROUSE", "SCOPES", 1)
{
    Name (X, 0x11)
    Name (Y, 0x22)
    Scope (\_SB)
    {
        Name (Y, 0x33)
        Device (A)
        {
            Name (X, 0x44)
            Name (Z, 0x55)
            Device (C) { Name (W, 0x66) Device (D) { Name (W, 0x77) Name (V, 0x78) } }
            Device (B)
            {
                Name (X, 0x88)
                Method (M1, 0) { Return (X) }
                Method (M2, 0) { Return (^X) }
                Method (M3, 0) { Return (^^X) }
                Method (M4, 0) { Return (\X) }
                Method (M5, 0) { Return (^^C.D.V) }
                Method (M6, 0) { Return (\_SB.A.C.D.W) }
                Method (M7, 0) { Name (X, 0x99) Return (X) }
                Device (VGEN)
                {
                    Name (_CID, "VM_Gen_Counter")
                    Name (X, 0xAA)
                    Method (ADDR, 0, NotSerialized)
                    {
                        Local0 = Package (2) { 0, 0 }
                        Local0 [0] = (((^^^^^X | (\Y << 8)) | (Y << 16)) | (^^^X << 24))
                        Return (Local0)
                    }
                }
            }
        }
    }
}
