package main

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"rouse/config"
	"rouse/config/toml"
	"rouse/rootfs/image"
)

// The configuration of an image, of which later ones win key by key, in the guest as here:
//
//  1. what the input says of itself: a container image's own configuration, or that the input is a program
//  2. files of the image: /etc/rouse.toml and /etc/rouse.d/*.toml
//  3. the file of --config
//  4. rouse.KEY=VALUE of the kernel command line
//
// Each stays a file of its own with its own lines, so that the guest names the same place as this command does.
// Only lists do not merge; the environment would lose the image's PATH, so that it is put together here.
const (
	configDir  = "/etc/rouse.d"
	ownFile    = configDir + "/00-image.toml" // the image's /etc/rouse.toml, where its place is taken
	buildFile  = configDir + "/99-build.toml" // the file of --config
	envFile    = configDir + "/99-env.toml"
	ofImage    = "image:"                        // before the names of its files
	ofTheImage = "the image's own configuration" // in errors
	ofProgram  = "the program's own configuration"
)

// placed is a source and where it goes in the image; "" where it is there already.
type placed struct {
	config.Source
	place string
}

// choose decides on the configuration, now that the image's files are known.
func (p *plan) choose(c *image.Contents) (image.Choice, error) {
	own, err := ownSources(c)
	if err != nil {
		return image.Choice{}, err
	}
	tree, err := p.userTree(own)
	if err != nil {
		return image.Choice{}, err
	}
	said, err := p.says(c, tree)
	if err != nil {
		return image.Choice{}, err
	}
	var choice image.Choice
	if said != nil {
		choice.Folders, p.generated = said.folders, string(said.text)
		p.notes = append(p.notes, said.notes...)
	}
	var sources []config.Source
	for _, s := range p.place(said, own) {
		sources = append(sources, s.Source)
		if s.place != "" {
			choice.Files = append(choice.Files, image.File{Path: s.place, Data: s.Text})
		}
	}
	if err := p.load(c, sources, choice.Folders); err != nil {
		return image.Choice{}, err
	}
	choice.Modules, choice.Commands = p.cfg.Modules, p.cfg.Programs()
	return choice, nil
}

// place lays the sources on top of each other. The lowest is /etc/rouse.toml, and files of the image stay where they are unless
// that is theirs.
func (p *plan) place(s *said, own []config.Source) []placed {
	var list []placed
	lowest := config.Path
	if s != nil && s.text != nil {
		list = append(list, placed{config.Source{Name: p.selfName(), Text: s.text}, lowest})
		lowest = ownFile
	}
	for _, o := range own {
		at := placed{Source: o}
		if o.Name == ofImage+config.Path && lowest != config.Path {
			at.place = ownFile
		}
		lowest = buildFile
		list = append(list, at)
	}
	if p.file != "" {
		if lowest == ownFile {
			lowest = buildFile
		}
		list = append(list, placed{config.Source{Name: p.file, Text: p.text}, lowest})
	}
	if s != nil && s.env != nil {
		list = append(list, placed{config.Source{Name: "the environment put together", Text: s.env}, envFile})
	}
	return list
}

func (p *plan) selfName() string {
	if p.container == nil {
		return ofProgram
	}
	return ofTheImage
}

// load checks everything together, as the guest will see it.
func (p *plan) load(c *image.Contents, sources []config.Source, made []string) error {
	for _, o := range p.overrides {
		sources = append(sources, config.Source{Name: config.CommandLine, Text: []byte(o), Setting: true})
	}
	doc, err := config.Load(sources)
	if err != nil {
		return err
	}
	p.doc, p.cfg = doc, doc.Config
	if len(p.cfg.Services) == 0 {
		if p.container != nil {
			return errors.New("the image names no command (ENTRYPOINT or CMD), and the configuration no [[service]]; add one with exec = [...]")
		}
		p.notes = append(p.notes, "no [[service]] in the configuration: the guest will boot and run nothing")
	}
	return p.checkServices(c, sources, made)
}

// ownSources are the configuration files that the image has itself.
func ownSources(c *image.Contents) ([]config.Source, error) {
	var list []config.Source
	names := []string{config.Path}
	for _, n := range c.List(configDir) {
		if strings.HasSuffix(n, ".toml") {
			names = append(names, configDir+"/"+n)
		}
	}
	for _, name := range names {
		text, err := c.ReadFile(name)
		if errors.Is(err, image.ErrMissing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, config.Source{Name: ofImage + name, Text: text})
	}
	return list, nil
}

// userTree is what people wrote, merged but not checked, but for mistakes that nothing else could mend.
func (p *plan) userTree(own []config.Source) (*toml.Value, error) {
	sources := own
	if p.file != "" {
		sources = append(slices.Clone(own), config.Source{Name: p.file, Text: p.text})
	}
	tree := &toml.Value{Kind: toml.Table}
	if len(sources) == 0 {
		return tree, nil
	}
	_, err := config.Load(sources)
	var left []error
	for _, e := range findings(err) {
		var c *config.Error
		if !errors.As(e, &c) || c.Problem != "nothing to run" {
			left = append(left, e)
		}
	}
	if len(left) > 0 {
		return nil, errors.Join(left...)
	}
	for _, s := range sources {
		one, err := toml.ParseFile(s.Name, s.Text)
		if err != nil {
			return nil, err
		}
		tree.Merge(one)
	}
	return tree, nil
}

// findings takes a joined error apart.
func findings(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, findings(e)...)
	}
	return list
}

// checkServices looks for what services and hooks need besides their programs: accounts and folders.
func (p *plan) checkServices(c *image.Contents, sources []config.Source, made []string) error {
	tree := &toml.Value{Kind: toml.Table}
	for _, s := range sources {
		if one, err := toml.ParseFile(s.Name, s.Text); err == nil && !s.Setting {
			tree.Merge(one)
		}
	}
	var errs []error
	add := func(key, cure, format string, args ...any) {
		at := tree.At(key).Position
		errs = append(errs, &config.Error{File: at.File, Line: at.Line, Key: key, Problem: fmt.Sprintf(format, args...), Cure: cure})
	}
	account := func(key, what, file, name string) {
		if !known(c, file, name) {
			add(key, "write a number, or a name that the image has", "no %s %q in the image's %s", what, name, file)
		}
	}
	for i, s := range p.cfg.Services {
		key := fmt.Sprintf("service[%d]", i)
		user, group, _ := strings.Cut(s.User, ":")
		account(key+".user", "user", "/etc/passwd", user)
		account(key+".group", "group", "/etc/group", cmp.Or(s.Group, group))
		for j, group := range s.Groups {
			account(fmt.Sprintf("%s.groups[%d]", key, j), "group", "/etc/group", group)
		}
		// A mount may bring it; those that the image itself names are made.
		if s.Dir != "" && len(p.cfg.Mounts) == 0 && !c.IsDir(s.Dir) && !slices.Contains(made, s.Dir) && !slices.Contains(guestFolders, topFolder(s.Dir)) {
			add(key+".dir", "make it, or correct the path", "no folder %s in the image", s.Dir)
		}
	}
	p.cfg.EachHook(func(key string, h *config.Hook) {
		user, group, _ := strings.Cut(h.User, ":")
		account(key+".user", "user", "/etc/passwd", user)
		account(key+".user", "group", "/etc/group", group)
	})
	return errors.Join(errs...)
}

// guestFolders are those that the guest fills.
var guestFolders = []string{"/dev", "/proc", "/run", "/sys", "/tmp"}

func topFolder(dir string) string {
	top, _, _ := strings.Cut(strings.TrimPrefix(path.Clean(dir), "/"), "/")
	return "/" + top
}

// known looks an account up by name. Numbers need no entry.
func known(c *image.Contents, file, name string) bool {
	if _, err := strconv.ParseUint(name, 10, 32); err == nil || name == "" {
		return true
	}
	text, err := c.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, name+":") {
			return true
		}
	}
	return false
}

// locate says where in the configuration a program stands that the image cannot run.
func (p *plan) locate(err error) error {
	var wrong *config.Error
	if errors.As(err, &wrong) { // its place is all that counts, not that it was found while an image was made
		return errors.Join(onlyConfig(err)...)
	}
	var command *image.CommandError
	if !errors.As(err, &command) {
		return err
	}
	found := p.doc.CheckFiles(func(name string) error {
		if name == command.Path {
			return command.Err
		}
		return nil
	})
	if len(found) == 0 {
		return err
	}
	var e *config.Error
	if errors.As(found[0], &e) {
		e.Problem = command.Path + ": " + e.Problem
	}
	return found[0]
}

// onlyConfig finds the findings in whatever they are wrapped in.
func onlyConfig(err error) []error {
	var list []error
	switch w := err.(type) {
	case *config.Error:
		return []error{w}
	case interface{ Unwrap() []error }:
		for _, e := range w.Unwrap() {
			list = append(list, onlyConfig(e)...)
		}
	case interface{ Unwrap() error }:
		return onlyConfig(w.Unwrap())
	}
	return list
}

// quote writes a TOML string.
func quote(s string) (string, error) {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("%q is no text that a configuration can hold (UTF-8)", s)
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String(), nil
}
