package service

// Resting takes one look and says whether every thread of the services that are to settle is at rest.
// Nothing waits and nothing is logged: a drain asks this beside its look at the queues, for a service
// that computes an answer has every queue empty and is not done. Looking from a machine with one
// processor, that is the usual case: while we look, the service cannot run.
func (m *Manager) Resting() (bool, error) {
	must, try, err := m.unsettled(newLooker(), watching)
	return len(must)+len(try) == 0, err
}
