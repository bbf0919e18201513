package embedded_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/embedded"
)

// An application that carries its own NATS: it publishes over an in-process
// connection, other processes connect to ClientURL.
func Example() {
	dir, err := os.MkdirTemp("", "embedded")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	srv, err := embedded.New(embedded.Config{
		Dir:    dir,
		Listen: "127.0.0.1:0",
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	if err := srv.Start(ctx); err != nil {
		panic(err)
	}
	defer srv.Shutdown()
	nc, err := srv.Connect()
	if err != nil {
		panic(err)
	}
	defer nc.Close()

	js, err := jetstream.New(nc)
	if err != nil {
		panic(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "LTX", Subjects: []string{"ltx.>"}}); err != nil {
		panic(err)
	}
	ack, err := js.Publish(ctx, "ltx.app.0", []byte("on disk once this returns"))
	if err != nil {
		panic(err)
	}
	fmt.Println(ack.Stream, ack.Sequence)
	// Output: LTX 1
}
