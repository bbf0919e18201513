package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"syscall"

	"github.com/ltxstream/ltxstream/testenv/steps"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go/jetstream"
)

// place is where the server is killed: before a call of the kernel, all those
// before it done. A kill leaves behind what these did, and maybe a part of a
// write: there is nothing else to tell one moment from another.
type place struct {
	label string
	call  string            // of package steps; "": as soon as do has returned
	path  string            // in that of the file
	data  func([]byte) bool // what is written, unless nil
	skip  int               // so many such calls pass
	upTo  int               // and up to so many more, drawn by the seed

	starting bool                                        // it is passed after each start
	half     bool                                        // a part of the write is done
	do       func(context.Context, *steppedServer) error // leads there, beside transfers
	takes    bool                                        // that takes our messages away: a full file follows
	lostAcks howOften                                    // the publisher finds afterwards that an answer was lost
}

// howOften says after how many kills something is expected. An answer can be late
// for want of a quick disk, and that of a part is not counted: neither all nor
// none can be asked for.
type howOften int

const (
	sometimes howOften = iota
	few                // a quarter at most
	most               // more than that
)

func (h howOften) is(n, kills int) bool { return h == sometimes || (h == most) == (4*n > kills) }

func places() []place {
	const socket = "socket:"
	message, delivery, ack := holds("ltx.app.0"), holds("HMSG ltx.app.0"), holds(`{"stream":"LTX","seq":`)
	return []place{
		{label: "directory locked", call: steps.Write, path: "/nats/lock", starting: true},
		{label: "recovered, not listening", call: steps.Listen, skip: 1, starting: true}, // the first tries the port

		{label: "message arrived", call: steps.Write, path: ".blk", data: message, upTo: 3, lostAcks: few},
		{label: "message half written", call: steps.Write, path: ".blk", data: message, upTo: 3, half: true, lostAcks: few},
		{label: "message written", call: steps.Sync, path: ".blk", upTo: 3, lostAcks: most},
		{label: "message synced, ack lost", call: steps.Write, path: socket, data: ack, upTo: 3, lostAcks: most},
		{label: "message acknowledged", do: acknowledge, lostAcks: few},
		{label: "message not delivered", call: steps.Write, path: socket, data: delivery, upTo: 3},

		{label: "consumer described", call: steps.Rename, path: "/meta.inf", starting: true},
		{label: "consumer's state written", call: steps.Rename, path: "/o.dat", upTo: 2, starting: true},
		{label: "consumer reset, answer lost", call: steps.Write, path: socket, data: holds("consumer_reset_response"), starting: true},

		{label: "neighbour's messages marked", call: steps.Write, path: ".blk", data: tombstone, do: purgeNeighbour},
		{label: "messages moved away", call: steps.Rename, path: "/streams/LTX/msgs", do: purgeAll, takes: true},
		{label: "purged, answer lost", call: steps.Write, path: socket, data: holds("stream_purge_response"), do: purgeAll, takes: true},

		{label: "stream described", call: steps.Rename, path: "/LTX/meta.sum", do: deleteStream, takes: true},
		{label: "stream made, answer lost", call: steps.Write, path: socket, data: holds("stream_create_response"), do: deleteStream, takes: true},

		{label: "stopping, index half written", call: steps.Write, path: "/index.db", half: true, do: stopServer},
	}
}

func (p place) is(s steps.Step) bool {
	return s.Call == p.call && strings.Contains(s.Path, p.path) && (p.data == nil || p.data(s.Data))
}

func holds(text string) func([]byte) bool {
	return func(data []byte) bool { return bytes.Contains(data, []byte(text)) }
}

// tombstone says that the record in a block is of a message that was removed: 30
// bytes, and a bit in the sequence.
func tombstone(record []byte) bool {
	return len(record) >= 30 && binary.LittleEndian.Uint32(record) == 30 && record[11] == 0x40
}

// acknowledge returns when all is acknowledged.
func acknowledge(ctx context.Context, s *steppedServer) error {
	_, err := s.pub.Sync(ctx)
	return err
}

// purgeNeighbour publishes for another database, and purges that.
func purgeNeighbour(ctx context.Context, s *steppedServer) error {
	for range 3 {
		if _, err := s.js.Publish(ctx, "ltx.other.0", []byte("of nobody")); err != nil {
			return err
		}
	}
	return purge(ctx, s, jetstream.WithPurgeSubject("ltx.other.>"))
}

// purge removes messages of the stream.
func purge(ctx context.Context, s *steppedServer, opts ...jetstream.StreamPurgeOpt) error {
	str, err := s.js.Stream(ctx, wire.DefaultStream)
	if err != nil {
		return err
	}
	return str.Purge(ctx, opts...)
}

func purgeAll(ctx context.Context, s *steppedServer) error { return purge(ctx, s) }

// deleteStream removes the stream; the publisher makes it anew.
func deleteStream(ctx context.Context, s *steppedServer) error {
	return s.js.DeleteStream(ctx, wire.DefaultStream)
}

// stopServer asks the server to end.
func stopServer(_ context.Context, s *steppedServer) error { return s.proc.Signal(syscall.SIGTERM) }
