//go:build nowatcher

package main

// watch does nothing: this server does not know that it can be cloned.
func watch(*server, string, bool) error { return nil }
