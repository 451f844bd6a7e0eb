package main

import (
	"slices"
	"testing"

	"rouse/config"
	"rouse/firewall"
)

// What the gate asks for is loaded before it is probed; package config cannot import it to say so itself.
func TestModulesOfTheGate(t *testing.T) {
	for _, name := range firewall.Modules() {
		if !slices.Contains(config.GuardModules(), name) {
			t.Errorf("%s is not among those that are loaded for the gate", name)
		}
	}
}
