package sockdiag

// Summary is what one owner still holds.
type Summary struct {
	Owner   string `json:"owner"` // as the caller names it; "" is nobody's
	Sockets int    `json:"sockets"`
	Unread  uint64 `json:"unread"`
	Unsent  uint64 `json:"unsent"`
	Queued  uint64 `json:"queued"`
}

// Summarize adds up sockets by owner, in the order in which owners first appear.
func Summarize(sockets []Socket, owner func(*Socket) string) []Summary {
	var sums []Summary
	at := make(map[string]int)
	for i := range sockets {
		s := &sockets[i]
		name := owner(s)
		n, known := at[name]
		if !known {
			n = len(sums)
			at[name] = n
			sums = append(sums, Summary{Owner: name})
		}
		sums[n].Sockets++
		sums[n].Unread += s.Unread
		sums[n].Unsent += s.Unsent
		sums[n].Queued += uint64(s.Queued)
	}
	return sums
}
