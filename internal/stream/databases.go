package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ltxstream/ltxstream/wire"
)

// Databases lists the names of the databases of which the stream holds data, in
// byte order: one request for every 100,000.
func (s *Stream) Databases(ctx context.Context) ([]wire.DB, error) {
	var all []wire.DB
	for offset := 0; ; {
		body, err := json.Marshal(map[string]any{"subjects_filter": "ltx.*.0", "offset": offset})
		if err != nil {
			return nil, err
		}
		var info streamInfo
		if err := s.request(ctx, "STREAM.INFO."+s.name, body, &info); err != nil {
			return nil, fmt.Errorf("list databases of stream %s: %w", s.name, err)
		}
		for subject := range info.State.Subjects {
			name := strings.TrimSuffix(strings.TrimPrefix(subject, "ltx."), ".0")
			if db, err := wire.ParseDB(name); err == nil {
				all = append(all, db)
			}
		}
		offset += len(info.State.Subjects)
		if len(info.State.Subjects) == 0 || offset >= info.Total {
			slices.Sort(all)
			return slices.Compact(all), nil
		}
	}
}

// Trim removes the data messages of db before a sequence. Claims stay. The
// caller never trims the newest file.
func (s *Stream) Trim(ctx context.Context, db wire.DB, before uint64) (removed uint64, err error) {
	body, err := json.Marshal(map[string]any{"filter": db.DataSubject(), "seq": before})
	if err != nil {
		return 0, err
	}
	var a purgeAnswer
	if err := s.request(ctx, "STREAM.PURGE."+s.name, body, &a); err != nil {
		return 0, fmt.Errorf("trim %s in stream %s: %w", db, s.name, err)
	}
	return a.Purged, nil
}
