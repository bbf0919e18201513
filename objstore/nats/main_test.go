package natsobj

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/testenv"
)

// TestMain is testenv.Main, but for a goroutine that Put of the client
// library's own object store, which plays the other programs here, leaves
// behind now and then.
func TestMain(m *testing.M) {
	testenv.Dispatch()
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}
