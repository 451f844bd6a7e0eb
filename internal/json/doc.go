// Package json writes and reads JSON for the guest, as encoding/json does for the types that the guest
// has, in a tenth of its size: that package and what only it needs weigh a twentieth of /init's budget.
//
// What differs: no Marshaler and Unmarshaler but RawMessage and encoding.TextMarshaler; of the types that read themselves
// from a text, those of net/netip; no option but omitempty and omitzero; embedded structs are fields like any other and need a name; keys
// of maps are strings. encoding/json is the oracle of the tests: for these types the text is the same
// byte for byte, and what one accepts the other does.
package json

import "encoding/json"

// RawMessage is a value as it stands in the text. It is encoding/json's, so that hosts may use that package
// on the same types.
type RawMessage = json.RawMessage

// maxDepth bounds nesting, so that hostile text cannot use up the stack.
const maxDepth = 200
