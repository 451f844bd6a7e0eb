package image

import (
	"bytes"
	"encoding/binary"
)

// signatureEnd ends a signed module: MODULE_SIG_STRING of include/linux/module_signature.h, v6.12.
const signatureEnd = "~Module signature appended~\n"

// withoutSignature is a module without what sign-file has appended to it. The same header has before signatureEnd
//
//	struct module_signature { u8 algo, hash, id_type, signer_len, key_id_len; u8 __pad[3]; __be32 sig_len; };
//
// and before that the signer, the key's id and the signature. What has none, or one that does not fit, stays as it is.
func withoutSignature(module []byte) []byte {
	const header = 12
	rest, ok := bytes.CutSuffix(module, []byte(signatureEnd))
	if !ok || len(rest) < header {
		return module
	}
	h := rest[len(rest)-header:]
	size := header + int64(h[3]) + int64(h[4]) + int64(binary.BigEndian.Uint32(h[8:]))
	if size > int64(len(rest)) {
		return module
	}
	return rest[:int64(len(rest))-size]
}
