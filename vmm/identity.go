package vmm

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Identity is what tells a clone from its twins on the network. What is empty stays the source's.
type Identity struct {
	Hostname   string              `json:"hostname,omitempty"`
	MachineID  string              `json:"machine-id,omitempty"` // 32 hexadecimal digits
	Interfaces []IdentityInterface `json:"interfaces,omitempty"`
}

// IdentityInterface replaces the addresses and gateways of an interface of the guest; with a MAC, that too.
type IdentityInterface struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac,omitempty"`
	Addresses []string `json:"addresses,omitempty"` // with prefix length
	Gateway4  string   `json:"gateway4,omitempty"`
	Gateway6  string   `json:"gateway6,omitempty"`
}

// placeholder is {n} or {x}, with a number that is added, or {id}.
var placeholder = regexp.MustCompile(`\{(n|x|id)(\+[0-9]+)?\}`)

// Expand fills in a pattern for clone i: {n} is i, {x} is i as two hexadecimal digits, {id} is 32 random
// ones; {n+10} and {x+16} add before they print.
func Expand(pattern string, i int) string {
	return placeholder.ReplaceAllStringFunc(pattern, func(word string) string {
		part := placeholder.FindStringSubmatch(word)
		add, _ := strconv.Atoi(part[2]) // "" is 0, and digits are all that matches
		switch part[1] {
		case "n":
			return strconv.Itoa(i + add)
		case "x":
			return fmt.Sprintf("%02x", i+add)
		}
		return randomID()
	})
}

func randomID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// Identities makes n of a template, a JSON object of Identity with patterns in its strings, or takes them from
// a JSON array.
func Identities(template []byte, n int) ([]Identity, error) {
	var list []Identity
	if json.Unmarshal(template, &list) == nil {
		if len(list) < n {
			return nil, fmt.Errorf("identities: %d for %d clones", len(list), n)
		}
		return list[:n], nil
	}
	for i := range n {
		var id Identity
		if err := json.Unmarshal([]byte(Expand(string(template), i)), &id); err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		list = append(list, id)
	}
	return list, nil
}

// handOver are the arguments of rouse-resumed. The generation is one that no other resume has had, so that
// the words are never taken for an earlier resume's.
func handOver(id Identity) map[string]any {
	seed := make([]byte, 64)
	rand.Read(seed)
	return map[string]any{"seed": seed, "time-ns": time.Now().UnixNano(), "identity": id, "generation": "host-" + randomID()}
}

// taken wants the report of an adjust to say that the identity was applied.
func (id Identity) taken(report json.RawMessage) error {
	var r struct {
		Phases []struct {
			Name   string          `json:"name"`
			Detail json.RawMessage `json:"detail"`
		} `json:"phases"`
	}
	if err := json.Unmarshal(report, &r); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	for _, p := range r.Phases {
		if p.Name != "identity" {
			continue
		}
		var detail struct{ Identity Identity }
		if err := json.Unmarshal(p.Detail, &detail); err == nil && detail.Identity.Hostname == id.Hostname &&
			len(detail.Identity.Interfaces) == len(id.Interfaces) {
			return nil
		}
		return fmt.Errorf("it did not take its identity: %s", p.Detail)
	}
	return fmt.Errorf("it did not take its identity: its report tells of no such phase")
}
