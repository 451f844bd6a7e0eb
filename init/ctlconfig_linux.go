package main

// configView is the configuration as it came out, and where each value came from.
func (g *guest) configView() any { return g.doc.Settings() }
