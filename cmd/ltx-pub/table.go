package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/publisher"
)

// printStatus prints a row per database.
func printStatus(w io.Writer, raw []json.RawMessage) error {
	all := make([]publisher.Status, len(raw))
	for i, r := range raw {
		if err := json.Unmarshal(r, &all[i]); err != nil {
			return fmt.Errorf("read status: %w", err)
		}
	}
	slices.SortFunc(all, func(a, b publisher.Status) int { return strings.Compare(a.DB, b.DB) })
	var rows [][]string
	for _, s := range all {
		rows = append(rows, row(s))
	}
	return daemon.PrintTable(w, []string{"db", "txid", "behind", "lag", "epoch", "files", "wal", "spool", "stream", "state"}, rows)
}

func row(s publisher.Status) []string {
	state := "publishing"
	if err := ready(s, 0); err != nil {
		state = err.Error()
	}
	return []string{
		s.DB, s.Acked.String(), strconv.Itoa(s.LagFiles), seconds(s.Lag), strconv.FormatUint(s.Epoch, 10),
		strconv.FormatUint(s.Files, 10), megabytes(s.Capture.WALBytes), megabytes(s.Capture.SpoolBytes), s.Stream, state,
	}
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Microsecond).String()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
