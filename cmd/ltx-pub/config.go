package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/litestream/config"
)

type configCmd struct {
	Import importCmd `cmd:"" help:"Translate a configuration of Litestream's."`
}

type importCmd struct {
	File string `arg:"" name:"LITESTREAM.YML" help:"Configuration of Litestream 0.3 or 0.5."`
	Out  string `name:"out" env:"-" noconfig:"" placeholder:"DIR" help:"Write ltx-pub.yml and ltx-archive.yml there instead of printing both."`
}

// Run prints or writes both configurations; what was not taken over as it was is
// said on stderr.
func (c *importCmd) Run(e *env) error {
	f, err := os.Open(c.File)
	if err != nil {
		return daemon.Exit(daemon.ExitNotFound, err, "nothing was written; Litestream reads /etc/litestream.yml where it is not told otherwise")
	}
	defer f.Close()
	imported, err := config.Import(f, filepath.Base(c.File))
	if err != nil {
		return daemon.Exit(daemon.ExitUsage, fmt.Errorf("read %s: %w", c.File, err), "nothing was written; correct it, or write ltx-pub's configuration by hand: ltx-pub run --help")
	}
	for _, n := range imported.Notes {
		fmt.Fprintf(e.stderr, "%s: %s\n", command, n)
	}
	if c.Out != "" {
		return writeFiles(c.Out, imported)
	}
	_, err = fmt.Fprintf(e.stdout, "# ltx-pub.yml\n%s---\n# ltx-archive.yml\n%s", imported.Publisher, imported.Archiver)
	return err
}

// writeFiles makes both files, and replaces none.
func writeFiles(dir string, imported *config.Imported) error {
	for _, file := range []struct{ name, text string }{{"ltx-pub.yml", imported.Publisher}, {"ltx-archive.yml", imported.Archiver}} {
		path := filepath.Join(dir, file.name)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return daemon.Exit(daemon.ExitUsage, err, "it was not replaced; remove it, or take another --out")
		}
		if err != nil {
			return err
		}
		if _, err := f.WriteString(file.text); err != nil {
			return errors.Join(err, f.Close())
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
