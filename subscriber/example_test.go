package subscriber_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	_ "github.com/mattn/go-sqlite3"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/embedded"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/subscriber"
)

// A replica in the same process as the application, its publisher and its
// nats-server, and read with the application's own driver.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	quiet := slog.New(slog.DiscardHandler)

	app, err := sql.Open("sqlite3", filepath.Join(dir, "app.db")+"?_journal_mode=WAL&_busy_timeout=5000")
	if err != nil {
		log.Fatal(err)
	}
	defer app.Close()
	if _, err := app.Exec("CREATE TABLE greeting(text)"); err != nil {
		log.Fatal(err)
	}

	srv, err := embedded.New(embedded.Config{Dir: filepath.Join(dir, "nats"), Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown()
	nc, err := srv.Connect()
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}

	pub, err := publisher.New(publisher.Config{JS: js, DB: "app", Path: filepath.Join(dir, "app.db"), Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	sub, err := subscriber.New(subscriber.Config{JS: js, DB: "app", Path: filepath.Join(dir, "replica.db"), Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { report(pub.Run(ctx)) })
	wg.Go(func() { report(sub.Run(ctx)) })
	defer wg.Wait()
	defer cancel()

	if _, err := app.Exec("INSERT INTO greeting VALUES ('hello from the primary')"); err != nil {
		log.Fatal(err)
	}
	pos, err := pub.Sync(ctx) // acknowledged by the stream
	if err != nil {
		log.Fatal(err)
	}
	if _, err := sub.WaitFor(ctx, pos.TXID); err != nil { // visible on the replica
		log.Fatal(err)
	}

	replica, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "replica.db")+"?mode=ro")
	if err != nil {
		log.Fatal(err)
	}
	defer replica.Close()
	var text string
	if err := replica.QueryRow("SELECT text FROM greeting").Scan(&text); err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)
	// Output: hello from the primary
}

func report(err error) {
	if err != nil {
		log.Print(err)
	}
}
