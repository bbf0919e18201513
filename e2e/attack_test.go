package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

// A mutation makes a message that nobody of us would send out of those in the
// stream. victim is a data message, claim the newest claim.
type mutation func(r *rand.Rand, victim, other, claim *nats.Msg) *nats.Msg

// clone leaves out what NATS itself put into the header or would act on, but
// for the message id: without it nothing is ours.
func clone(m *nats.Msg) *nats.Msg {
	c := &nats.Msg{Subject: m.Subject, Header: nats.Header{}, Data: slices.Clone(m.Data)}
	for k, v := range m.Header {
		if k == nats.MsgIdHdr || !strings.HasPrefix(k, "Nats-") {
			c.Header[k] = slices.Clone(v)
		}
	}
	return c
}

func flip(r *rand.Rand, b []byte) {
	if len(b) > 0 {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	}
}

var dataHeaders = []string{
	wire.HeaderMinTXID, wire.HeaderMaxTXID, wire.HeaderTimestamp, wire.HeaderPreChecksum, wire.HeaderPostChecksum,
	wire.HeaderPageSize, wire.HeaderCommit, wire.HeaderSize, wire.HeaderWriter, wire.HeaderEpoch, // the last two are another publisher's when they change
}

// mutations never state a newer claim: nothing in an open server tells such a
// message from that of another publisher, which fences us by design.
var mutations = map[string]mutation{
	"foreign": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		b := make([]byte, r.IntN(300))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return &nats.Msg{Subject: victim.Subject, Data: b}
	},
	"foreign token": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		m.Subject = fmt.Sprintf("ltx.%s.%d", appDB, 1+r.IntN(9))
		return m
	},
	"replayed": func(_ *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg { return clone(victim) },
	"replayed with the server's headers": func(_ *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim) // clients take sequence and subject of a direct get out of the header
		for _, k := range []string{"Nats-Sequence", "Nats-Subject", "Nats-Stream", "Nats-Time-Stamp"} {
			m.Header[k] = victim.Header[k]
		}
		return m
	},
	"replayed claim": func(_ *rand.Rand, _, _, claim *nats.Msg) *nats.Msg { return clone(claim) },
	"bit of the body": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		flip(r, m.Data)
		return m
	},
	"truncated": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		m.Data = m.Data[:r.IntN(len(m.Data))]
		return m
	},
	"longer": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		m.Data = append(m.Data, make([]byte, 1+r.IntN(100))...)
		return m
	},
	"header missing": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		delete(m.Header, dataHeaders[r.IntN(len(dataHeaders))])
		return m
	},
	"bit of a header": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		name := dataHeaders[r.IntN(len(dataHeaders)-2)]
		v := []byte(m.Header.Get(name))
		for { // what travels is printable
			c := slices.Clone(v)
			flip(r, c)
			if !slices.ContainsFunc(c, func(b byte) bool { return b <= ' ' || b > '~' }) {
				m.Header[name] = []string{string(c)}
				return m
			}
		}
	},
	"number of a header": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		meta, err := wire.ParseMeta(m.Header)
		if err != nil {
			return m
		}
		meta.Min += 1
		meta.Max += 1
		meta.Parts = max(meta.Parts, 1)
		m.Header = meta.Header()
		return m
	},
	"two swapped": func(_ *rand.Rand, victim, other, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		m.Data = slices.Clone(other.Data)
		return m
	},
	"part of nothing": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		n := 2 + r.IntN(5)
		m.Header[wire.HeaderPart] = []string{strconv.Itoa(1+r.IntN(n)) + "/" + strconv.Itoa(n)}
		return m
	},
	"claimed to be full": func(_ *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		m.Header[wire.HeaderFull] = []string{"1"}
		return m
	},
	"older epoch": func(_ *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		if meta, err := wire.ParseMeta(m.Header); err == nil && meta.Epoch > 1 {
			meta.Epoch--
			m.Header = meta.Header()
		}
		return m
	},
	"bit of what comes next": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := next(r, victim)
		flip(r, m.Data)
		return m
	},
	"other database": func(_ *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg {
		m := clone(victim)
		m.Subject = "ltx.other.0"
		return m
	},
}

// next returns a whole LTX file that follows that of m, with one page that is
// not the primary's: its rolling checksum is a lie, and nothing else is wrong.
func next(r *rand.Rand, m *nats.Msg) *nats.Msg {
	meta, err := wire.ParseMeta(m.Header)
	if err != nil {
		panic(err) // m is a data message
	}
	page := make([]byte, meta.PageSize)
	for i := range page {
		page[i] = byte(r.Uint32())
	}
	h := ltx.Header{
		Version: ltx.Version, PageSize: meta.PageSize, Commit: meta.Commit, MinTXID: meta.Max + 1, MaxTXID: meta.Max + 1,
		Timestamp: meta.Timestamp.UnixMilli(), PreApplyChecksum: meta.Post,
	}
	var b bytes.Buffer
	enc, err := ltx.NewEncoder(&b)
	if err == nil {
		err = enc.EncodeHeader(h)
	}
	if err == nil {
		err = enc.EncodePage(ltx.PageHeader{Pgno: 1 + r.Uint32N(meta.Commit)}, page)
	}
	enc.SetPostApplyChecksum(ltx.ChecksumFlag | ltx.Checksum(r.Uint64()))
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		panic(err)
	}
	lie := wire.MetaOf(enc.Header(), enc.Trailer(), int64(b.Len()))
	lie.DB, lie.Writer, lie.Epoch, lie.Part, lie.Parts = meta.DB, meta.Writer, meta.Epoch, 1, 1
	return &nats.Msg{Subject: m.Subject, Header: lie.Header(), Data: b.Bytes()}
}

// TestForeignMessagesOnOurSubjects: somebody injects, replays, reorders,
// truncates and flips bits while both roles run. Nothing wrong is ever applied,
// nobody is stopped by it, and it is counted.
func TestForeignMessagesOnOurSubjects(t *testing.T) {
	t.Parallel()
	attack(t, mutants, mutations, true)
}

// TestForgedFiles: somebody publishes whole LTX files in our name that continue
// the chain, with pages that the primary never had. The rolling checksum gives
// them away; both roles go on, and all ends equal. A replica may be taken back
// to an older full file in between: its readers may go back, but never see what
// was forged.
func TestForgedFiles(t *testing.T) {
	t.Parallel()
	lies := map[string]mutation{"lie": func(r *rand.Rand, victim, _, _ *nats.Msg) *nats.Msg { return next(r, victim) }}
	attack(t, mutants/4, lies, false)
}

// attack stores n messages that were made by mutations. forward: readers must
// not go back.
func attack(t *testing.T, n int, mutations map[string]mutation, forward bool) {
	t.Helper()
	srv := testenv.Node(t)
	js := srv.JetStream()
	f := paths(t)
	rnd := random(seed(t))
	// The server would drop most replays as duplicates.
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: wire.DefaultStream, Subjects: []string{wire.StreamSubjects}, Discard: jetstream.DiscardNew, AllowDirect: true, Duplicates: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, teller := testenv.Bank(t, f.primary, sqlconn.WAL(), rnd.Uint64())
	p, pr := publish(t, js, appDB, f.primary)
	s, sr := replicate(t, js, appDB, f.replica)
	for range 10 {
		transfers(t, teller, 3)
		settle(t, p, s)
	}
	var reader *foreign.Process
	if forward {
		reader = watch(t, f.replica)
	}
	names := slices.Sorted(maps.Keys(mutations))
	restarts, stored := 0, map[string]int{}
	var skipped, met uint64
	for done, tries := 0, 0; done < n; tries++ {
		name := names[tries%len(names)]
		victim, other, claim := pick(t, js, rnd)
		m := mutations[name](rnd, victim, other, claim)
		ack, err := js.PublishMsg(t.Context(), m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if ack.Duplicate {
			continue
		}
		stored[name]++
		if rnd.IntN(2) == 0 {
			transfers(t, teller, 1+rnd.IntN(3))
		}
		select {
		case <-pr.done:
			t.Fatalf("mutant %d, %s %v: the publisher ended: %v", done, name, m.Header, pr.stop())
		case <-sr.done:
			t.Fatalf("mutant %d, %s %v: the subscriber ended: %v", done, name, m.Header, sr.stop())
		default:
		}
		if done%20 == 19 { // before the next one
			transfers(t, teller, 1)
			equalAt(t, settle(t, p, s), f.primary, f.replica)
		}
		if done++; done%60 == 0 || done == n { // an attack while one of us is away
			ps, ss := p.Status(), s.Status()
			skipped, met = skipped+ss.Skipped+ss.Feed.Replayed+ss.Feed.Stale, met+ps.Foreign
			pr.mustStop(t)
			sr.mustStop(t)
			if _, err := js.PublishMsg(t.Context(), mutations[name](rnd, victim, other, claim)); err != nil {
				t.Fatal(err)
			}
			p, pr = publish(t, js, appDB, f.primary)
			s, sr = replicate(t, js, appDB, f.replica)
			restarts++
		}
	}
	transfers(t, teller, 1)
	settle(t, p, s)
	if reader != nil {
		testenv.Finish(t, reader)
	}
	third := f.dir + "/third.db"
	s3, _ := replicate(t, js, appDB, third)
	equalAt(t, settle(t, p, s3), f.primary, f.replica, third)
	st := s3.Status()
	all := st.Skipped + st.Feed.Replayed + st.Feed.Stale
	c := count(t, js, appDB)
	t.Logf("stored %v", stored)
	t.Logf("%d mutants, %d restarts; publisher met %d foreign, subscriber skipped %d; a new replica skipped %d of %+v; reseeds %d",
		n, restarts, met, skipped, all, c, s.Status().Reseeds)
	if skipped < uint64(n)/8 || met == 0 {
		t.Error("they were not counted")
	}
	for _, name := range names {
		if stored[name] == 0 {
			t.Errorf("%s was never stored", name)
		}
	}
}

// pick returns two data messages and a claim that our publisher sent.
func pick(t *testing.T, js jetstream.JetStream, r *rand.Rand) (victim, other, claim *nats.Msg) {
	t.Helper()
	str, err := js.Stream(t.Context(), wire.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := str.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	get := func(seq uint64) *nats.Msg {
		m, err := str.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		return &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
	}
	last := info.State.LastSeq
	var valid []*nats.Msg
	newest := r.IntN(2) == 0 // half of the time
	for back := uint64(0); len(valid) < 2; back++ {
		seq := 1 + r.Uint64N(last)
		if newest && back < 5 && back < last {
			seq = last - back
		}
		m := get(seq)
		if m.Header.Get(nats.ExpectedLastSubjSeqHdr) == "" {
			continue // not sent by our publisher
		}
		if meta, err := wire.ParseMeta(m.Header); err == nil && m.Subject == appDB.DataSubject() && meta.DB == appDB {
			valid = append(valid, m)
		}
	}
	return valid[0], valid[1], get(1) // the first message is a claim
}
