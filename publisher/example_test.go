package publisher_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ltxstream/ltxstream/embedded"
	"github.com/ltxstream/ltxstream/publisher"
	_ "github.com/mattn/go-sqlite3"
	"github.com/nats-io/nats.go/jetstream"
)

// An application publishes its own database: NATS, the publisher and the
// application's connections live in one process.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	dir, err := os.MkdirTemp("", "example-*")
	check(err)
	defer os.RemoveAll(dir)
	quiet := slog.New(slog.DiscardHandler)

	server, err := embedded.New(embedded.Config{Dir: filepath.Join(dir, "nats"), Logger: quiet})
	check(err)
	check(server.Start(ctx))
	defer server.Shutdown()
	nc, err := server.Connect()
	check(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	check(err)

	path := filepath.Join(dir, "app.db")
	db, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL")
	check(err)
	defer db.Close()
	_, err = db.Exec("CREATE TABLE note (text)")
	check(err)

	pub, err := publisher.New(publisher.Config{JS: js, DB: "app", Path: path, Logger: quiet})
	check(err)
	ended := make(chan error, 1)
	go func() { ended <- pub.Run(ctx) }()

	_, err = db.Exec("INSERT INTO note VALUES ('hello')")
	check(err)
	pos, err := pub.Sync(ctx) // the note is in the stream, on disk
	check(err)
	fmt.Println("acknowledged:", pos.TXID == pub.Status().Acked)

	stop()
	check(<-ended) // nil: everything committed was acknowledged
	// Output: acknowledged: true
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
