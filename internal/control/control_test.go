package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/superfly/ltx"
	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/embedded"
	"github.com/ltxstream/ltxstream/internal/control"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func serve(t *testing.T) *embedded.Server {
	t.Helper()
	s, err := embedded.New(embedded.Config{Dir: t.TempDir(), SyncInterval: time.Minute, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown() })
	return s
}

func dial(t *testing.T, s *embedded.Server) *nats.Conn {
	t.Helper()
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

var config = control.Config{Version: "0.1.0", Logger: quiet}

// publish serves publications on a connection of their own, as a process does.
func publish(t *testing.T, s *embedded.Server, cfg control.Config, pubs ...control.Publication) *control.Service {
	t.Helper()
	svc, err := control.ServePublications(t.Context(), dial(t, s), cfg, pubs)
	return closing(t, svc, err)
}

func subscribe(t *testing.T, s *embedded.Server, cfg control.Config, replicas ...control.Replica) *control.Service {
	t.Helper()
	svc, err := control.ServeReplicas(t.Context(), dial(t, s), cfg, replicas)
	return closing(t, svc, err)
}

func closing(t *testing.T, svc *control.Service, err error) *control.Service {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
	return svc
}

func publication(db wire.DB, txid ltx.TXID, err error) control.Publication {
	return control.Publication{
		DB:     db,
		Status: func() any { return map[string]any{"db": db, "txid": txid} },
		Sync:   func(context.Context) (ltx.Pos, error) { return ltx.NewPos(txid, ltx.ChecksumFlag|7), err },
		Full:   func(context.Context) (ltx.Pos, error) { return ltx.NewPos(txid+1, ltx.ChecksumFlag|7), err },
	}
}

// replica is at txid for good: a wait for more lasts until its deadline.
func replica(db wire.DB, id string, txid ltx.TXID) control.Replica {
	return control.Replica{
		DB: db, ID: id,
		Status: func() any { return map[string]any{"db": db, "id": id} },
		Wait: func(ctx context.Context, want ltx.TXID) (ltx.Pos, error) {
			if want > txid {
				<-ctx.Done()
				return ltx.Pos{}, ctx.Err()
			}
			return ltx.NewPos(txid, ltx.ChecksumFlag), nil
		},
	}
}

func texts(raw []json.RawMessage) []string {
	var out []string
	for _, r := range raw {
		out = append(out, string(r))
	}
	slices.Sort(out)
	return out
}

const patience = time.Minute

// patiently asks again with a longer stall where answers are missing: on a slow
// machine they come one long after the other.
func patiently(t *testing.T, nc *nats.Conn, ask func(control.Client) error) {
	t.Helper()
	c := control.Client{NC: nc, Stall: control.DefaultStall}
	for {
		err := ask(c)
		if err == nil {
			return
		}
		if c.Stall *= 3; c.Stall > 15*time.Second {
			t.Error(err)
			return
		}
	}
}

func TestStatus(t *testing.T) {
	s := serve(t)
	publish(t, s, config, publication("app", 1, nil), publication("crm", 2, nil))
	publish(t, s, config, publication("app", 3, nil))
	subscribe(t, s, config, replica("app", "r1", 1), replica("app", "r2", 1))
	subscribe(t, s, config, replica("app", "r3", 1))
	nc := dial(t, s)

	tests := []struct {
		side control.Side
		db   wire.DB
		want []string
	}{
		{control.Publishers, "crm", []string{`{"db":"crm","txid":"0000000000000002"}`}},
		{control.Publishers, "app", []string{`{"db":"app","txid":"0000000000000001"}`, `{"db":"app","txid":"0000000000000003"}`}},
		{control.Publishers, "", []string{`{"db":"app","txid":"0000000000000001"}`, `{"db":"app","txid":"0000000000000003"}`, `{"db":"crm","txid":"0000000000000002"}`}},
		{control.Subscribers, "app", []string{`{"db":"app","id":"r1"}`, `{"db":"app","id":"r2"}`, `{"db":"app","id":"r3"}`}},
		{control.Subscribers, "", []string{`{"db":"app","id":"r1"}`, `{"db":"app","id":"r2"}`, `{"db":"app","id":"r3"}`}},
	}
	for _, tt := range tests {
		patiently(t, nc, func(c control.Client) error {
			raw, err := c.Status(t.Context(), tt.side, tt.db, patience)
			if err != nil || !slices.Equal(texts(raw), tt.want) {
				return fmt.Errorf("%s %q: %v, %v", tt.side, tt.db, texts(raw), err)
			}
			return nil
		})
	}
}

func TestStatusOfManyDatabases(t *testing.T) {
	s := serve(t)
	var pubs []control.Publication
	for i := range 1000 {
		p := publication(wire.DB(fmt.Sprintf("db-%d", i)), 1, nil)
		p.Status = func() any { return map[string]any{"pad": strings.Repeat("x", 10<<10), "i": i} }
		pubs = append(pubs, p)
	}
	publish(t, s, config, pubs...)
	raw, err := control.Client{NC: dial(t, s)}.Status(t.Context(), control.Publishers, "", patience)
	if err != nil || len(raw) != 1000 {
		t.Fatalf("%d statuses, %v", len(raw), err)
	}
}

func TestNobody(t *testing.T) {
	c := control.Client{NC: dial(t, serve(t))}
	_, statusErr := c.Status(t.Context(), control.Publishers, "", patience)
	_, syncErr := c.Sync(t.Context(), "app", patience)
	_, waitErr := c.Wait(t.Context(), "app", "r1", 1, patience)
	for err, text := range map[error]string{
		statusErr: "no ltx-pub answers",
		syncErr:   `no ltx-pub serves database "app"`,
		waitErr:   `no ltx-sub serves replica "r1" of database "app"`,
	} {
		if _, ok := errors.AsType[*control.NobodyError](err); !ok || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %q", err, text)
		}
	}
}

var errFenced = daemon.Exit(daemon.ExitFenced, errors.New("fenced"), "")

func TestSync(t *testing.T) {
	s := serve(t)
	publish(t, s, config, publication("app", 9, nil), publication("old", 1, errFenced), publication("bad", 1, errors.New("disk full")))
	publish(t, s, config, publication("app", 1, errFenced))
	c := control.Client{NC: dial(t, s)}

	patiently(t, c.NC, func(c control.Client) error {
		got, err := c.Sync(t.Context(), "app", patience)
		if err != nil || got.TXID != 9 || got.DB != "app" || got.Checksum != ltx.ChecksumFlag|7 {
			return fmt.Errorf("sync: %+v, %v", got, err)
		}
		return nil
	})
	patiently(t, c.NC, func(c control.Client) error {
		got, err := c.Full(t.Context(), "app", patience)
		if err != nil || got.TXID != 10 {
			return fmt.Errorf("full: %+v, %v", got, err)
		}
		return nil
	})
	for db, kind := range map[wire.DB]control.Kind{"old": control.KindFenced, "bad": control.KindError} {
		_, err := c.Sync(t.Context(), db, patience)
		if e, ok := errors.AsType[*control.RemoteError](err); !ok || e.Kind != kind || e.DB != db {
			t.Errorf("sync %s: %v, want kind %s", db, err, kind)
		}
		if want := map[wire.DB]int{"old": 11, "bad": 1}[db]; daemon.Code(err) != want {
			t.Errorf("sync %s: exit code %d, want %d", db, daemon.Code(err), want)
		}
	}
}

// Finished requests must not count as running ones.
func TestSlotsAreGivenBack(t *testing.T) {
	cfg := config
	cfg.MaxRunning = 1
	s := serve(t)
	publish(t, s, cfg, publication("app", 9, nil))
	c := control.Client{NC: dial(t, s)}
	waitFor(t, func() bool {
		for range 3 {
			if _, err := c.Sync(t.Context(), "app", patience); err != nil {
				return false
			}
		}
		return true
	})
}

func TestWait(t *testing.T) {
	s := serve(t)
	subscribe(t, s, config, replica("app", "r1", 5), replica("app", "r2", 9))
	subscribe(t, s, config, replica("app", "r3", 9))
	c := control.Client{NC: dial(t, s)}

	patiently(t, c.NC, func(c control.Client) error {
		all, err := c.Wait(t.Context(), "app", "", 5, patience)
		if err != nil || len(all) != 3 {
			return fmt.Errorf("wait on all: %v, %v", all, err)
		}
		return nil
	})
	one, err := c.Wait(t.Context(), "app", "r2", 9, patience)
	if err != nil || len(one) != 1 || one[0].ID != "r2" || one[0].TXID != 9 {
		t.Errorf("wait on r2: %v, %v", one, err)
	}
	patiently(t, c.NC, func(c control.Client) error {
		some, err := c.Wait(t.Context(), "app", "", 9, 2*c.Stall)
		e, ok := errors.AsType[*control.RemoteError](err)
		if !ok || e.Kind != control.KindTimeout || e.ID != "r1" || len(some) != 2 {
			return fmt.Errorf("wait for a lagging replica: %v, %v", some, err)
		}
		return nil
	})
}

// Waiting requests must not keep the service from answering others.
func TestWaitsDoNotBlock(t *testing.T) {
	cfg := config
	cfg.MaxRunning = 2
	s := serve(t)
	svc := subscribe(t, s, cfg, replica("app", "r1", 1))
	c := control.Client{NC: dial(t, s)}
	results := make(chan error, 2)
	for range 2 {
		go func() {
			for {
				_, err := c.Wait(t.Context(), "app", "r1", 2, patience)
				if e, ok := errors.AsType[*control.RemoteError](err); ok && e.Kind == control.KindBusy {
					continue // the probe below had the slot
				}
				results <- err
				return
			}
		}()
	}
	var busy *control.RemoteError
	waitFor(t, func() bool {
		_, err := c.Wait(t.Context(), "app", "r1", 2, time.Millisecond)
		return errors.As(err, &busy) && busy.Kind == control.KindBusy
	})
	if raw, err := c.Status(t.Context(), control.Subscribers, "app", patience); err != nil || len(raw) != 1 {
		t.Errorf("status during waits: %v, %v", raw, err)
	}
	if err := svc.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if e, ok := errors.AsType[*control.RemoteError](<-results); !ok || e.Kind != control.KindStopped {
			t.Errorf("a wait that Close ended: %v", e)
		}
	}
}

func TestBadRequests(t *testing.T) {
	s := serve(t)
	subscribe(t, s, config, replica("app", "r1", 1))
	nc := dial(t, s)
	for _, header := range []nats.Header{
		nil,
		{"Ltx-Txid": {"zz"}},
		{"Ltx-Txid": {"0000000000000000"}},
		{"Ltx-Txid": {"0000000000000001"}, "Ltx-Timeout": {"-1s"}},
		{"Ltx-Txid": {"0000000000000001"}, "Ltx-Timeout": {"soon"}},
	} {
		m := nats.NewMsg("ltxstream.sub.app.r1.wait")
		m.Header = header
		reply, err := nc.RequestMsg(m, patience)
		if err != nil || reply.Header.Get(micro.ErrorCodeHeader) != string(control.KindRequest) {
			t.Errorf("%v: %v, %v", header, reply, err)
		}
	}
}

// A process that accepts and then dies must not keep the asker for ever.
func TestSilence(t *testing.T) {
	s := serve(t)
	mute := dial(t, s)
	_, err := mute.Subscribe("ltxstream.pub.app.sync", func(m *nats.Msg) {
		r := nats.NewMsg(m.Reply)
		r.Header = nats.Header{"Ltx-Id": {"p1"}, "Ltx-State": {"more"}}
		_ = mute.PublishMsg(r)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := mute.Flush(); err != nil {
		t.Fatal(err)
	}
	patiently(t, dial(t, s), func(c control.Client) error {
		_, err := c.Sync(t.Context(), "app", c.Stall/3)
		if e, ok := errors.AsType[*control.SilenceError](err); !ok || e.ID != "p1" {
			return fmt.Errorf("error %v, want a SilenceError", err)
		}
		return nil
	})
}

func TestMicroProtocol(t *testing.T) {
	s := serve(t)
	publish(t, s, config, publication("app", 4, nil))
	nc := dial(t, s)
	if _, err := (control.Client{NC: nc}).Sync(t.Context(), "app", patience); err != nil {
		t.Fatal(err)
	}
	var ping micro.Ping
	var info micro.Info
	var stats micro.Stats
	for subject, into := range map[string]any{"$SRV.PING.ltx-pub": &ping, "$SRV.INFO.ltx-pub": &info, "$SRV.STATS.ltx-pub": &stats} {
		m, err := nc.Request(subject, nil, patience)
		if err != nil {
			t.Fatal(subject, err)
		}
		if err := json.Unmarshal(m.Data, into); err != nil {
			t.Fatal(subject, err)
		}
	}
	if ping.Name != "ltx-pub" || ping.Version != "0.1.0" {
		t.Errorf("ping %+v", ping)
	}
	var subjects []string
	for _, e := range info.Endpoints {
		subjects = append(subjects, e.Subject)
	}
	slices.Sort(subjects)
	if want := []string{"ltxstream.pub.app.full", "ltxstream.pub.app.status", "ltxstream.pub.app.sync", "ltxstream.pub.status"}; !slices.Equal(subjects, want) {
		t.Errorf("endpoints %v, want %v", subjects, want)
	}
	for _, e := range stats.Endpoints {
		if e.Name == "sync-app" && e.NumRequests != 1 {
			t.Errorf("stats of sync: %+v", e)
		}
	}
}

func TestBadVersionIsAnError(t *testing.T) {
	if _, err := control.ServePublications(t.Context(), dial(t, serve(t)), control.Config{Version: "dev"}, nil); err == nil {
		t.Error("no error")
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("condition not met")
		}
	}
}
