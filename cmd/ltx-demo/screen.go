package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"golang.org/x/term"
)

// screen shows one table in place on a terminal; elsewhere one line at a time.
type screen struct {
	out   io.Writer
	live  bool
	lines int
}

func newScreen(out io.Writer) *screen {
	f, ok := out.(*os.File)
	return &screen{out: out, live: ok && term.IsTerminal(int(f.Fd()))}
}

func (s *screen) show(p picture) {
	if !s.live {
		fmt.Fprintln(s.out, p.line())
		return
	}
	if s.lines > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.lines)
	}
	text := p.table()
	s.lines = strings.Count(text, "\n") + 1
	fmt.Fprintln(s.out, text)
}

// picture is what the table shows.
type picture struct {
	primary, replica string // TXIDs
	commits          int64
	tps              float64
	p50, p99         time.Duration
	seen             int
	checks           int64
	files            uint64
	walPrimary       int64
	walReplica       int64
}

func (d *demo) picture(writer *app.Process, reader *foreign.Process) picture {
	w, r := writer.Progress(), reader.Report()
	pub, sub := d.pub.Status(), d.sub.Status()
	p := picture{
		primary: pub.Acked.String(), replica: sub.TXID.String(), commits: w.Report.Commits, checks: r.Checks, files: pub.Files,
		walPrimary: sizeOf(d.primary + "-wal"), walReplica: sizeOf(d.replica + "-wal"),
	}
	if n := len(w.Commits); n > 1 {
		last := w.Commits[max(0, n-int(max(d.rate, 100))):]
		if span := time.Duration(last[len(last)-1].End - last[0].End); span > 0 {
			p.tps = float64(len(last)-1) / span.Seconds()
		}
	}
	lags, _ := foreign.Lags(w.Commits, r.Seen)
	slices.Sort(lags)
	if p.seen = len(lags); p.seen > 0 {
		p.p50, p.p99 = lags[p.seen/2], lags[p.seen*99/100]
	}
	return p
}

func sizeOf(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

func kib(n int64) string { return fmt.Sprintf("%d KiB", n>>10) }

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

func (p picture) table() string {
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.AppendHeader(table.Row{"", "primary", "replica"})
	t.AppendRow(table.Row{"TXID", p.primary, p.replica})
	t.AppendRow(table.Row{"WAL", kib(p.walPrimary), kib(p.walReplica)})
	t.AppendSeparator()
	t.AppendRow(table.Row{"transactions", fmt.Sprintf("%d, %.0f/s", p.commits, p.tps), fmt.Sprintf("%d LTX files", p.files)})
	t.AppendRow(table.Row{"lag p50 / p99", "", millis(p.p50) + " / " + millis(p.p99)})
	t.AppendRow(table.Row{"reads", "", p.checks})
	return t.Render()
}

func (p picture) line() string {
	return fmt.Sprintf("txid %s → %s  %d transactions %.0f/s  lag p50 %s p99 %s  wal %s → %s",
		p.primary, p.replica, p.commits, p.tps, millis(p.p50), millis(p.p99), kib(p.walPrimary), kib(p.walReplica))
}
