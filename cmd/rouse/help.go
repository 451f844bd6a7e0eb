package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"
)

// Help, completion and manual pages come from one model: the command line's structs.

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh" help:"bash or zsh: source <(rouse completion bash)"`
}

// Run prints a script for the shell. zsh runs bash's by its own compatibility.
func (c *completionCommand) Run(s *session, k *kong.Context) error {
	if c.Shell == "zsh" {
		if _, err := io.WriteString(s.out, "autoload -U +X bashcompinit && bashcompinit\n"); err != nil {
			return err
		}
	}
	_, err := io.WriteString(s.out, completion(k.Model))
	return err
}

// completion is a function with a table: for each command its words, for each flag that has them its values.
// Where there is neither, the shell completes files.
func completion(app *kong.Application) string {
	var b strings.Builder
	b.WriteString("# Completion of rouse, made by rouse completion.\n_rouse() {\n" +
		"  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd= w i words=\n" +
		"  for ((i = 1; i < COMP_CWORD; i++)); do\n    w=${COMP_WORDS[i]}\n    [[ $w == -* ]] || { cmd=$w; break; }\n  done\n")
	b.WriteString("  case \"$cmd $prev\" in\n")
	for _, n := range commands(app) {
		for _, f := range allFlags(n) {
			if f.Enum != "" {
				fmt.Fprintf(&b, "    '%s --%s') words='%s' ;;\n", n.Name, f.Name, strings.Join(values(f.Value), " "))
			}
		}
	}
	b.WriteString("  esac\n  if [[ -z $words ]]; then\n    case \"$cmd\" in\n")
	fmt.Fprintf(&b, "      '') words='%s' ;;\n", strings.Join(append(names(commands(app)), flagNames(app.Node)...), " "))
	for _, n := range commands(app) {
		fmt.Fprintf(&b, "      %s) words='%s' ;;\n", n.Name, strings.Join(append(argumentValues(n), flagNames(n)...), " "))
	}
	b.WriteString("    esac\n  fi\n" +
		"  case \"$cmd\" in logs|stop|rm) words+=\" $(rouse ps 2>/dev/null | awk 'NR > 1 { print $1 }')\" ;; esac\n" +
		"  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n" +
		"  [[ ${#COMPREPLY[@]} == 0 ]] && COMPREPLY=($(compgen -f -- \"$cur\"))\n}\ncomplete -o filenames -F _rouse rouse\n")
	return b.String()
}

func commands(app *kong.Application) []*kong.Node {
	var list []*kong.Node
	for _, n := range app.Leaves(true) {
		if n.Type == kong.CommandNode {
			list = append(list, n)
		}
	}
	return list
}

func names(nodes []*kong.Node) (list []string) {
	for _, n := range nodes {
		list = append(list, n.Name)
	}
	return list
}

// allFlags are a command's own and those of all commands.
func allFlags(n *kong.Node) (list []*kong.Flag) {
	for _, group := range n.AllFlags(true) {
		list = append(list, group...)
	}
	return list
}

func flagNames(n *kong.Node) (list []string) {
	for _, f := range allFlags(n) {
		list = append(list, "--"+f.Name)
		if f.Tag.Negatable != "" {
			list = append(list, "--no-"+f.Name)
		}
	}
	return list
}

// values are those that an enumeration has, but for the empty one.
func values(v *kong.Value) (list []string) {
	if v.Enum == "" {
		return nil
	}
	for _, s := range strings.Split(v.Enum, ",") {
		if s = strings.TrimSpace(s); s != "" {
			list = append(list, s)
		}
	}
	return list
}

func argumentValues(n *kong.Node) (list []string) {
	for _, p := range n.Positional {
		list = append(list, values(p)...)
	}
	return list
}

type manCommand struct {
	Folder string `arg:"" optional:"" help:"Folder to write rouse.1, rouse-bake.1 and so on to; if not given, rouse.1 goes to standard output."`
}

// Run writes manual pages.
func (m *manCommand) Run(s *session, k *kong.Context) error {
	if m.Folder == "" {
		_, err := io.WriteString(s.out, overview(k.Model))
		return err
	}
	if err := os.MkdirAll(m.Folder, 0o755); err != nil {
		return err
	}
	pages := map[string]string{"rouse.1": overview(k.Model)}
	for _, n := range commands(k.Model) {
		pages["rouse-"+n.Name+".1"] = manual(n)
	}
	for name, text := range pages {
		if err := s.write(filepath.Join(m.Folder, name), text); err != nil {
			return err
		}
	}
	return nil
}

// overview is rouse(1).
func overview(app *kong.Application) string {
	var b strings.Builder
	header(&b, "rouse", app.Help)
	b.WriteString(".SH SYNOPSIS\n.B rouse\n.I COMMAND\n.RI [ FLAGS ]\n.SH COMMANDS\n")
	for _, n := range commands(app) {
		fmt.Fprintf(&b, ".TP\n.BR rouse-%s (1)\n%s\n", roff(n.Name), roff(n.Help))
	}
	b.WriteString(".SH FLAGS\n")
	for _, f := range app.Node.Flags {
		manualFlag(&b, f)
	}
	b.WriteString(".SH EXIT STATUS\n0 if all went well, 1 if not; the reason is on standard error.\n" +
		".SH FILES\n.TP\n.I $XDG_RUNTIME_DIR/rouse\nrunning clones; for root without that variable\n.IR /run/rouse-host .\n" +
		".TP\n.I $XDG_CACHE_HOME/rouse/blobs\nwhat rouse pull keeps for the next one.\n")
	return b.String()
}

// manual is the page of one command.
func manual(n *kong.Node) string {
	var b strings.Builder
	header(&b, "rouse-"+n.Name, n.Help)
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B rouse %s\n", roff(n.Name))
	for _, p := range n.Positional {
		fmt.Fprintf(&b, ".I %s\n", roff(p.Summary()))
	}
	b.WriteString(".RI [ FLAGS ]\n")
	if n.Detail != "" {
		fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", roff(n.Detail))
	}
	if len(n.Positional) > 0 {
		b.WriteString(".SH ARGUMENTS\n")
		for _, p := range n.Positional {
			fmt.Fprintf(&b, ".TP\n.I %s\n%s\n", roff(p.Name), roff(p.Help))
		}
	}
	b.WriteString(".SH FLAGS\n")
	for _, f := range allFlags(n) {
		manualFlag(&b, f)
	}
	b.WriteString(".SH SEE ALSO\n.BR rouse (1)\n")
	return b.String()
}

// header has no date: pages made of the same program are the same.
func header(b *strings.Builder, name, help string) {
	fmt.Fprintf(b, ".TH %s 1 \"\" \"rouse %s\" \"rouse manual\"\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), roff(version), roff(name), roff(strings.TrimSuffix(help, ".")))
}

func manualFlag(b *strings.Builder, f *kong.Flag) {
	name := "--" + f.Name
	if f.Tag.Negatable != "" {
		name = "--[no-]" + f.Name
	}
	if f.Short != 0 {
		name = fmt.Sprintf("-%c, %s", f.Short, name)
	}
	value := ""
	if !f.IsBool() {
		value = "=" + f.FormatPlaceHolder()
	}
	fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(name+value), roff(f.Help))
}

// roff keeps text from being taken for requests.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
