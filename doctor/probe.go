package doctor

import (
	"os"
	"strings"
)

// Probe judges the kernel that runs, by what is there and by facts: names that the table's probes ask for.
func Probe(facts []string) Has {
	return func(w *Way) (bool, string, string) {
		for _, sign := range strings.Split(w.Probe, "|") {
			if among(facts, sign) || sign[0] == '/' && there(sign) {
				return true, "", ""
			}
		}
		return false, w.Options, ""
	}
}

// there looks for a path, or for a word in a file.
func there(sign string) bool {
	path, word, wanted := strings.Cut(sign, ":")
	if !wanted {
		_, err := os.Stat(path)
		return err == nil
	}
	text, _ := os.ReadFile(path) // a file that is not there has no words
	return among(strings.Fields(string(text)), word)
}

func among(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}
