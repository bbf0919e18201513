package archiver

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
)

// permissions are those of docs/operations.md for an archiver of stream LTX,
// whose buckets an administrator made.
var permissions = &server.Permissions{
	Publish: &server.SubjectPermission{Allow: []string{
		"$JS.API.INFO",
		"$JS.API.STREAM.INFO.LTX", "$JS.API.STREAM.MSG.GET.LTX", "$JS.API.STREAM.PURGE.LTX",
		"$JS.API.CONSUMER.CREATE.LTX.>", "$JS.API.CONSUMER.INFO.LTX.>", "$JS.API.CONSUMER.MSG.NEXT.LTX.>",
		"$JS.API.CONSUMER.RESET.LTX.>",
		"$JS.API.STREAM.INFO.KV_LTX-archive", "$JS.API.STREAM.INFO.KV_LTX-leases", "$JS.API.STREAM.UPDATE.KV_LTX-leases", "$JS.API.STREAM.CREATE.KV_LTX-leases",
		"$JS.API.DIRECT.GET.KV_LTX-leases.>",
		"$JS.API.CONSUMER.CREATE.KV_LTX-archive.>",
		"$KV.LTX-archive.>", "$KV.LTX-leases.>",
	}},
	Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
}

// TestPermissions: an archiver works with no more than what the documentation
// asks for, trimming and a standby included.
func TestPermissions(t *testing.T) {
	t.Parallel()
	srv := streamtest.Server(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "admin", Password: "a"}, {Username: "archiver", Password: "b", Permissions: permissions}}
	})
	admin := streamtest.Connect(t, srv, nats.UserInfo("admin", "a"))
	src := newSource(t, admin, "app", 31)
	if _, err := openProgress(t.Context(), admin, "LTX", 1); err != nil {
		t.Fatal(err)
	}
	dest := newTarget()
	cfg := quickly(t, streamtest.Connect(t, srv, nats.UserInfo("archiver", "b")), dest)
	cfg.TrimAfter = 200 * time.Millisecond
	a, stop := start(t, cfg)
	for range 3 {
		src.publish(t, 3)
		reached(t, dest, "app", src.published)
	}
	str, err := stream.Open(t.Context(), admin, "")
	if err != nil {
		t.Fatal(err)
	}
	streamtest.Eventually(t, "trimmed", func() bool {
		m, err := str.FirstData(t.Context(), "app")
		return err == nil && m.Meta.Min > 3
	})
	if err := a.Ready(0); err != nil {
		t.Error(err)
	}
	stop()
	second, _ := start(t, cfg)
	src.publish(t, 2)
	reached(t, dest, "app", src.published)
	if err := second.Ready(0); err != nil {
		t.Error(err)
	}
	src.check(t, dest, src.published)
}
