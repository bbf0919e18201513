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
)

// printStatus prints a row per replica.
func printStatus(w io.Writer, raw []json.RawMessage) error {
	all := make([]status, len(raw))
	for i, r := range raw {
		if err := json.Unmarshal(r, &all[i]); err != nil {
			return fmt.Errorf("read status: %w", err)
		}
	}
	slices.SortFunc(all, func(a, b status) int { return strings.Compare(a.DB+" "+a.ID, b.DB+" "+b.ID) })
	var rows [][]string
	for _, s := range all {
		rows = append(rows, row(s))
	}
	return daemon.PrintTable(w, []string{"db", "replica", "txid", "behind", "lag", "files", "wal frames", "state", "path"}, rows)
}

func row(s status) []string {
	state := string(s.State)
	if err := ready(s.Status, 0); err != nil {
		state = err.Error()
	}
	lag := time.Duration(s.Lag * float64(time.Second)).Round(100 * time.Microsecond)
	return []string{
		s.DB, s.ID, s.TXID.String(), strconv.FormatUint(s.LagFiles, 10), lag.String(),
		strconv.FormatUint(s.Files, 10), strconv.FormatUint(uint64(s.WALFrames), 10), state, s.Path,
	}
}
