package archive

import (
	"context"
	"log/slog"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/wire"
)

// Bootstrapper finds bases in an archive. It is safe for concurrent use.
type Bootstrapper struct {
	Archive *levels.Archive
	Dir     string       // for files on their way, default os.TempDir; a whole database must fit, compressed
	Logger  *slog.Logger // default slog.Default()
}

// Base implements [subscriber.Bootstrapper]. It returns the changes since after
// where the archive has them and they lead farther than a whole database does, or
// as far and are smaller; else the whole database. Either ends behind after. It
// lists the archive each time.
func (b *Bootstrapper) Base(ctx context.Context, db wire.DB, after ltx.Pos) (*subscriber.Base, error) {
	return newSearch(b, string(db), after).run(ctx)
}

// String is the archive's URL, for people.
func (b *Bootstrapper) String() string { return b.Archive.String() }
