package main

import (
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
)

// version is set by the linker in release builds (-X main.version=v1.2.3).
var version = "dev"

// versionDoc tells what was built: the module's version and the commit that the
// go command stamped (-buildvcs=true).
func versionDoc() p2pnode.VersionDoc {
	doc := p2pnode.VersionDoc{Schema: p2pnode.Schema("version"), Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return doc
	}
	if v := info.Main.Version; version == "dev" && v != "" && v != "(devel)" {
		doc.Version = v
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			doc.Commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && doc.Commit != "" {
		doc.Commit += "-dirty"
	}
	return doc
}

// built is when the commit was made that this program was built from; zero: unknown.
func built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			at, _ := time.Parse(time.RFC3339, s.Value)
			return at
		}
	}
	return time.Time{}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Version, commit and platform of this binary", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			doc := versionDoc()
			return a.show(view{doc: doc, names: []string{doc.Version}, print: func(p *printer) {
				p.line("p2pnode %s", doc.Version)
				p.fact("commit", "%s", doc.Commit)
				p.fact("go", "%s %s/%s", doc.Go, doc.OS, doc.Arch)
			}})
		},
	}
}
