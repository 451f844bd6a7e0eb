package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// docFiles are the manual's pages that tell of commands.
var docFiles = []string{"snapshots.md", "fleet.md"}

func doc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// commandLine is a line of an indented block that begins with rouse.
var commandLine = regexp.MustCompile(`(?m)^    (rouse .*)$`)

// TestDocCommands parses every command line of the manual by the model that runs them.
func TestDocCommands(t *testing.T) {
	texts := []string{doc(t, docFiles[0]), doc(t, docFiles[1])}
	t.Chdir(t.TempDir())
	for _, name := range []string{"image", "web"} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for _, text := range texts {
		for _, m := range commandLine.FindAllStringSubmatch(text, -1) {
			for _, line := range strings.Split(m[1], "|") {
				line, _, _ = strings.Cut(line, "#")
				words := strings.Fields(line)
				if len(words) == 0 || words[0] != "rouse" {
					continue
				}
				seen++
				parser, err := kong.New(&cli{}, kong.Vars{"version": "test"}, kong.Exit(func(int) {}))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := parser.Parse(words[1:]); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
		}
	}
	if seen < 8 {
		t.Errorf("%d command lines in the manual", seen)
	}
}

// blocks are the fenced blocks of one language.
func blocks(text, language string) (list []string) {
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

// TestFleetKubernetes has kubectl decode the manifests by its own types, without a cluster: what they do not know
// is lost, and missed here.
func TestFleetKubernetes(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("needs kubectl:", err)
	}
	const wrong = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n  - name: c\n    image: x\n    imagee: y\n"
	for i, manifest := range append(blocks(doc(t, "fleet.md"), "yaml"), wrong) {
		if strings.Contains(manifest, "kubevirt.io/v1") {
			continue // kubectl does not know KubeVirt's types
		}
		decode := func(args ...string) map[string]any {
			cmd := exec.Command(kubectl, append(args, "--local", "-f", "-", "-o", "json")...)
			cmd.Stdin = strings.NewReader(manifest)
			out, err := cmd.Output()
			if err != nil {
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					t.Fatalf("manifest %d: %s", i, exit.Stderr)
				}
				t.Fatal(err)
			}
			var v map[string]any
			if err := json.Unmarshal(out, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
		// The first keeps what it does not know, the second does not.
		written, typed := decode("label", "a=b"), decode("set", "env", "A=b")
		delete(written["metadata"].(map[string]any), "labels")
		if lost := missing(written, typed, ""); len(lost) > 0 != (manifest == wrong) {
			t.Errorf("manifest %d: kubectl does not know %q", i, lost)
		}
	}
}

// missing are the paths of a that b has not.
func missing(a, b any, path string) (lost []string) {
	switch a := a.(type) {
	case map[string]any:
		other, _ := b.(map[string]any)
		for k, v := range a {
			if w, ok := other[k]; !ok {
				lost = append(lost, path+"/"+k)
			} else {
				lost = append(lost, missing(v, w, path+"/"+k)...)
			}
		}
	case []any:
		other, _ := b.([]any)
		for i, v := range a {
			if i >= len(other) {
				return append(lost, path)
			}
			lost = append(lost, missing(v, other[i], path)...)
		}
	}
	return lost
}

func TestDocJSON(t *testing.T) {
	for _, name := range docFiles {
		for i, b := range blocks(doc(t, name), "json") {
			if !json.Valid([]byte(b)) {
				t.Errorf("%s: block %d is not JSON", name, i)
			}
		}
	}
	f := identityFlags{Identity: filepath.Join(t.TempDir(), "identity")}
	if err := os.WriteFile(f.Identity, []byte(blocks(doc(t, "snapshots.md"), "json")[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	ids, err := f.list(2)
	if err != nil || ids[1].Hostname != "web-1" || ids[1].Interfaces[0].Addresses[0] != "192.0.2.11/24" {
		t.Errorf("%+v, %v", ids, err)
	}
}
