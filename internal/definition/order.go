package definition

// Order plans the start of n services, each after all that it waits for. of gives a service's name and the names that it waits
// for, which must be there. Services without an order between them keep theirs, so that the result is always the same. If some
// wait for each other there is no plan, at is one of them and cycle names them: "b after c after b".
func Order(n int, of func(i int) (name string, after []string)) (plan []int, at int, cycle string) {
	o := orderer{of: of, index: make(map[string]int, n), done: make([]bool, n)}
	for i := range n {
		name, _ := of(i)
		o.index[name] = i
	}
	for len(plan) < n { // takes, again and again, the first service whose own have all been taken
		next := 0
		for next < n && (o.done[next] || o.lacks(next) >= 0) {
			next++
		}
		if next == n {
			at, cycle = o.cycle()
			return nil, at, cycle
		}
		o.done[next] = true
		plan = append(plan, next)
	}
	return plan, -1, ""
}

type orderer struct {
	of    func(i int) (name string, after []string)
	index map[string]int
	done  []bool
}

// lacks is the first service that i waits for and that is not done, or -1.
func (o *orderer) lacks(i int) int {
	_, after := o.of(i)
	for _, name := range after {
		if j := o.index[name]; !o.done[j] {
			return j
		}
	}
	return -1
}

// cycle follows what each waits for, from what the last service that is not done waits for: after as many steps as there are
// services it is inside of a cycle, and goes round it once more.
func (o *orderer) cycle() (first int, names string) {
	at := len(o.done) - 1
	for o.done[at] {
		at--
	}
	for range len(o.done) + 1 {
		at = o.lacks(at)
	}
	first = at
	names, _ = o.of(first)
	for {
		at = o.lacks(at)
		name, _ := o.of(at)
		names += " after " + name
		if at == first {
			return first, names
		}
	}
}
