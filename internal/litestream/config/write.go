package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ltxstream/ltxstream/wire"
)

// writer writes the two files.
type writer struct {
	*converter
	source string
	dbs    []database
	b      strings.Builder
}

func (w *writer) publisher() string {
	w.head("ltx-pub", pub)
	w.list("databases", w.databases())
	if from := w.places(continued); len(from) > 0 {
		w.comment("Where Litestream left off. It may stay, and may go once ltx-archive has written there.")
		w.list("from-litestream", from)
	}
	if !slices.ContainsFunc(w.conn, func(p pair) bool { return p.key == "server" }) {
		w.comment("Without server, NATS runs inside ltx-pub, on 127.0.0.1:4222.")
	}
	w.values(append(slices.Clone(w.conn), pair{"http", w.http}, pair{"log-level", w.level}, pair{"log-format", w.format}))
	return w.take()
}

func (w *writer) archiver() string {
	w.head("ltx-archive", archive)
	if to := w.places(func(d database) []location { return d.places }); len(to) > 0 {
		w.comment(`ltx-archive restore URL NAME OUTPUT restores; of a place written NAME=URL, the name to restore is ".".`)
		w.list("to", to)
	} else {
		w.comment("No destination was found: to: [URL]")
	}
	w.values(append(slices.Clone(w.conn),
		pair{"flush", w.flush.value}, pair{"snapshot-interval", w.snapshot.value}, pair{"keep-window", w.window.value}))
	if len(w.windows) > 0 {
		w.list("windows", w.windows)
	}
	w.values([]pair{{"log-level", w.level}, {"log-format", w.format}})
	return w.take()
}

func (w *writer) take() string {
	defer w.b.Reset()
	return w.b.String()
}

// head says what the file is, what it needs, and what is not in it.
func (w *writer) head(command string, f file) {
	w.comment(fmt.Sprintf("%s --config FILE; made from %s by ltx-pub config import.", command, w.source))
	if env := w.secrets.variables(); len(env) > 0 {
		w.comment("Needs in its environment: " + strings.Join(env, ", ") + ".")
	}
	for _, n := range w.log.notes {
		if n.file == f {
			w.comment("- " + n.String())
		}
	}
}

func (w *writer) comment(text string) { w.b.WriteString("# " + text + "\n") }

func (w *writer) list(key string, items []string) {
	w.b.WriteString(key + ":\n")
	for _, item := range items {
		w.b.WriteString("  - " + strconv.Quote(item) + "\n")
	}
}

func (w *writer) values(pairs []pair) {
	for _, p := range pairs {
		if p.value != "" {
			w.b.WriteString(p.key + ": " + strconv.Quote(p.value) + "\n")
		}
	}
}

func (w *writer) databases() (all []string) {
	for _, d := range w.dbs {
		all = append(all, string(d.name)+"="+d.path)
	}
	return all
}

// continued is the place whose TXIDs go on.
func continued(d database) []location {
	if len(d.places) == 0 || d.places[0].anew {
		return nil
	}
	return d.places[:1]
}

// places are what --to and --from-litestream take: the folder above, where every
// database has its folder by its name; else each database's own folder.
func (w *writer) places(of func(database) []location) (all []string) {
	above := map[string]int{}
	for _, d := range w.dbs {
		for _, l := range of(d) {
			if up, ok := meets(l, d.name); ok {
				above[up]++
			}
		}
	}
	for _, d := range w.dbs {
		for _, l := range of(d) {
			place := string(d.name) + "=" + l.String()
			if up, ok := meets(l, d.name); ok && above[up] == len(w.dbs) {
				place = up
			}
			if !slices.Contains(all, place) {
				all = append(all, place)
			}
		}
	}
	return all
}

// meets returns the folder above a place whose last segment is a name.
func meets(l location, name wire.DB) (above string, ok bool) {
	up, last, ok := l.split()
	return up.String(), ok && last == string(name)
}
