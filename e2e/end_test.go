package e2e

import (
	"os"
	"testing"

	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestEndThatIsNoFile: a publisher that starts finds a message at the end of the
// stream that names a position which the database is at, by its checksum, and is no
// file. Readers pass over it, and never come there: what follows must not count on it.
func TestEndThatIsNoFile(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"with its directory": false, "without its directory": true} {
		for _, parts := range []bool{false, true} {
			if parts {
				name += ", a last part"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				js := testenv.Node(t).JetStream()
				f := paths(t)
				_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), 1)
				p, pr := publish(t, js, appDB, f.primary)
				s, _ := replicate(t, js, appDB, f.replica)
				settle(t, p, s)
				transfers(t, teller, 5)
				settle(t, p, s)
				pr.mustStop(t)

				m := newest(t, js)
				meta, err := wire.ParseMeta(m.Header)
				if err != nil {
					t.Fatal(err)
				}
				meta.Min, meta.Max = meta.Min+1, meta.Max+1
				if parts {
					meta.Part, meta.Parts = 2, 2
				}
				m.Header = meta.Header()
				if _, err := js.PublishMsg(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				if lost {
					if err := os.RemoveAll(publisher.StateDir(f.primary)); err != nil {
						t.Fatal(err)
					}
				}
				p, _ = publish(t, js, appDB, f.primary)
				syncWithin(t, patience, p)
				transfers(t, teller, 5)
				equalAt(t, settle(t, p, s), f.primary, f.replica)
				if p.Status().Foreign == 0 {
					t.Error("it was not counted")
				}
				expectNoReseed(t, s)
			})
		}
	}
}

// newest returns the newest data message of the stream.
func newest(t *testing.T, js jetstream.JetStream) *nats.Msg {
	t.Helper()
	s, err := js.Stream(t.Context(), wire.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), appDB.DataSubject())
	if err != nil {
		t.Fatal(err)
	}
	return &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
}
