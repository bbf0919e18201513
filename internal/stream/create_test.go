package stream

import (
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
)

// TestEnsureOfDeletedStream: a server that is still deleting a stream of that name
// refuses for a moment; one that goes on so has its error told.
func TestEnsureOfDeletedStream(t *testing.T) {
	for _, refusals := range []int64{3, createTries} {
		nc := streamtest.Connect(t, streamtest.Server(t, nil)).Conn()
		var creates atomic.Int64
		sub, err := nc.Subscribe("stub.STREAM.>", func(m *nats.Msg) {
			answer := map[string]any{"error": jetstream.APIError{Code: 404, ErrorCode: jetstream.JSErrCodeStreamNotFound}}
			create := strings.Contains(m.Subject, ".CREATE.")
			switch {
			case create && creates.Add(1) <= refusals:
				answer["error"] = jetstream.APIError{Code: 500, ErrorCode: codeCreateFailed}
			case creates.Load() > refusals:
				answer = map[string]any{"config": Config{}.withDefaults().settings()}
			}
			b, err := json.Marshal(answer)
			if err == nil {
				err = m.Respond(b)
			}
			if err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
		js, err := jetstream.NewWithAPIPrefix(nc, "stub")
		if err != nil {
			t.Fatal(err)
		}
		_, err = Ensure(t.Context(), js, Config{})
		if api := apiErrorOf(err); (refusals < createTries) != (err == nil) || err != nil && (api == nil || api.ErrorCode != codeCreateFailed) {
			t.Errorf("after %d refusals: %v", refusals, err)
		}
		if n := creates.Load(); n != min(refusals+1, createTries) {
			t.Errorf("asked %d times", n)
		}
	}
}
