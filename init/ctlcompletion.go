package main

import (
	"io"
	"strings"

	"rouse/internal/fmt"
)

// The scripts ask `rousectl completion words [COMMAND]` at each completion, so that they know the commands and the
// services of the guest in which they run.
const (
	bashCompletion = `_rousectl() {
  local command=
  [ "$COMP_CWORD" -gt 1 ] && command=${COMP_WORDS[1]}
  COMPREPLY=($(compgen -W "$(rousectl completion words $command 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _rousectl rousectl
`
	zshCompletion  = "autoload -U +X bashcompinit && bashcompinit\n" + bashCompletion
	fishCompletion = "complete -c rousectl -f -a '(rousectl completion words (commandline -opc)[2] 2>/dev/null)'\n"
)

func ctlCompletion(args []string, out io.Writer) error {
	words, err := parse(newFlags("completion"), args)
	if err == nil {
		err = only(words, 1, 2, "completion bash|zsh|fish|words [COMMAND]")
	}
	if err != nil {
		return err
	}
	script := ""
	switch words[0] {
	case "bash":
		script = bashCompletion
	case "zsh":
		script = zshCompletion
	case "fish":
		script = fishCompletion
	case "words":
		for _, c := range commands() {
			if len(words) == 1 {
				script += c.name + "\n"
			} else if c.name == words[1] {
				script = completions(c)
			}
		}
	default:
		return fmt.Errorf("completion %q: unknown; use bash, zsh, fish or words", words[0])
	}
	_, err = io.WriteString(out, script)
	return err
}

// completions are the words that may follow a command, a line each: those of its arguments that stand for themselves,
// the names of services, and its options, from its own help.
func completions(c command) (list string) {
	for _, word := range strings.Fields(c.args) {
		if word = strings.Trim(word, "[]"); word == "SERVICE" {
			list += serviceNames()
		} else if word[0] != '-' && strings.Contains(word, "|") {
			list += strings.ReplaceAll(word, "|", "\n") + "\n"
		}
	}
	if err := c.run([]string{"--help"}, io.Discard); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			if strings.HasPrefix(line, "  -") {
				list += strings.Fields(line)[0] + "\n"
			}
		}
	}
	return list
}

// serviceNames is empty where there is nobody to ask.
func serviceNames() (list string) {
	var services []struct{ Name string }
	_ = ask(askTimeout, "rouse-services", nil, &services)
	for _, s := range services {
		list += s.Name + "\n"
	}
	return list
}
