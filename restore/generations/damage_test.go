package generations

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/testenv"
)

// needed are the parts that the newest point of an archive with one snapshot rests
// on; it has nothing else.
func oneChain(t testing.TB, seed uint64) *made {
	t.Helper()
	for ; ; seed += 1000 {
		m := makeUp(t, shape{seed: seed, pageSize: 512, generations: 1, indexes: 4, segments: 3, pages: 4})
		snapshots := 0
		for _, p := range m.parts {
			if p.snapshot {
				snapshots++
			}
		}
		if snapshots == 1 && len(m.parts) > 7 {
			return m
		}
	}
}

func (m *made) last() state { return m.states[len(m.states)-1] }

// without removes a part, and puts it back with the function it returns.
func (m *made) without(t testing.TB, p part) (back func()) {
	t.Helper()
	if err := m.store.Delete(t.Context(), p.key); err != nil {
		t.Fatal(err)
	}
	return func() { m.store.put(t, p.key, pack(t, p.content), p.time) }
}

// TestEachObjectMissing: what is missing is named; the newest segment alone leaves no
// trace, and neither does one at the end of a WAL.
func TestEachObjectMissing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		m := oneChain(t, seed)
		for i, p := range m.parts {
			back := m.without(t, p)
			got, _, err := m.restored(t, Target{})
			gap, isGap := errors.AsType[*GapError](err)
			_, isTarget := errors.AsType[*TargetError](err)
			lastOfWAL := i+1 == len(m.parts) || m.parts[i+1].index != p.index
			onlyOfWAL := lastOfWAL && p.offset == 0
			switch {
			case p.snapshot:
				if !isTarget {
					t.Errorf("%s missing: %v, want a TargetError", p.key, err)
				}
			case i+1 == len(m.parts):
				if err != nil || !bytes.Equal(got, m.states[i-1].db) {
					t.Errorf("%s missing: %v; want the state before it", p.key, err)
				}
			case lastOfWAL && !onlyOfWAL:
				if err != nil { // its transactions are lost, and nothing tells: docs/format.md says so
					t.Errorf("%s missing: %v", p.key, err)
				}
			case !isGap || gap.Index != p.index || gap.Offset != p.offset || gap.Found.Key != m.parts[i+1].key || gap.Generation != p.generation:
				t.Errorf("%s missing: %v, want a GapError that names it", p.key, err)
			}
			m.checks(t, p.key+" missing", p.snapshot || !lastOfWAL || onlyOfWAL && i+1 < len(m.parts), false)
			back()
		}
		m.holds(t, Target{}, m.last())
	}
}

// checks runs a check that reads everything.
func (m *made) checks(t testing.TB, what string, gap, damage bool) {
	t.Helper()
	report, err := Check(t.Context(), CheckConfig{Store: m.store, DB: dbName, Whole: func(string) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	var gaps, damaged []Problem
	for _, p := range report.Problems {
		if p.Gap {
			gaps = append(gaps, p)
		} else {
			damaged = append(damaged, p)
		}
	}
	if len(gaps) > 0 != gap || len(damaged) > 0 != damage {
		t.Errorf("%s: the check finds gaps %v, damage %v; want gaps %t, damage %t", what, gaps, damaged, gap, damage)
	}
	objects := 0
	for _, g := range report.Generations {
		objects += len(g.Objects())
	}
	if report.Read > objects || !gap && !damage && report.Read != objects {
		t.Errorf("%s: %d objects were read, want %d", what, report.Read, objects)
	}
}

// wantDamage fails the test unless a restore finds that the object is damaged.
func (m *made) wantDamage(t testing.TB, what, key string) {
	t.Helper()
	_, _, err := m.restored(t, Target{})
	damage, ok := errors.AsType[*levels.DamageError](err)
	if !ok || damage.Key != key {
		t.Errorf("%s: %v, want a DamageError of %s", what, err, key)
	}
}

// TestEachByteDamaged: wherever a bit is flipped it is found, unless it makes no
// difference (of a run of zeros it does not matter from where they are copied).
func TestEachByteDamaged(t *testing.T) {
	t.Parallel()
	m := oneChain(t, 7)
	rng := rand.New(rand.NewPCG(m.seed, 9))
	for _, p := range m.parts {
		good := pack(t, p.content)
		at := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
		for n := range 11 {
			at = append(at, len(good)-1-n)
		}
		for range 4 {
			at = append(at, rng.IntN(len(good)))
		}
		for _, i := range at {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << rng.IntN(8)
			if same, err := unpack(bytes.NewReader(bad)); err == nil && bytes.Equal(same, p.content) {
				continue
			}
			m.store.put(t, p.key, bad, p.time)
			m.wantDamage(t, fmt.Sprintf("bit flipped in byte %d of %d", i, len(good)), p.key)
		}
		m.store.put(t, p.key, append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]+1), p.time)
		m.checks(t, p.key+" damaged", false, true)
		for _, n := range []int{0, 1, 4, 7, 11, len(good) / 2, len(good) - 8, len(good) - 4, len(good) - 1} {
			m.store.put(t, p.key, good[:n], p.time)
			m.wantDamage(t, "cut", p.key)
		}
		m.checks(t, p.key+" cut", false, true)
		m.store.put(t, p.key, append(bytes.Clone(good), "more"...), p.time)
		m.wantDamage(t, "with more behind it", p.key)
		m.store.put(t, p.key, good, p.time)
	}
	m.checks(t, "nothing damaged", false, false)
	m.holds(t, Target{}, m.last())
}

// TestLeftOver: what retention has not deleted yet, of before the first snapshot, is in
// nobody's way.
func TestLeftOver(t *testing.T) {
	t.Parallel()
	m, snapshots := withSnapshots(t, 2)
	newest := snapshots[len(snapshots)-1]
	deleted := false
	for _, p := range m.parts {
		switch {
		case p.generation != newest.generation || p.index >= newest.index:
		case p.snapshot:
			_ = m.without(t, p)
		case p.offset == 0 && !deleted:
			_ = m.without(t, p)
			deleted = true
		default:
			m.store.put(t, p.key, []byte("rubbish"), p.time)
		}
	}
	m.holds(t, Target{}, m.last())
	report, err := Check(t.Context(), CheckConfig{Store: m.store, DB: dbName, Whole: func(string) bool { return true }})
	if err != nil || len(report.Problems) > 0 || !deleted {
		t.Errorf("%+v, %v", report.Problems, err)
	}
}

// TestMixedUp: objects that are whole, in the place of others.
func TestMixedUp(t *testing.T) {
	t.Parallel()
	m := oneChain(t, 11)
	rng := rand.New(rand.NewPCG(m.seed, 10))
	for range 60 {
		p, other := m.parts[rng.IntN(len(m.parts))], m.parts[rng.IntN(len(m.parts))]
		if p.key == other.key {
			continue
		}
		m.store.put(t, p.key, pack(t, other.content), p.time)
		got, _, err := m.restored(t, Target{})
		damage, isDamage := errors.AsType[*levels.DamageError](err)
		_, isGap := errors.AsType[*GapError](err)
		last := p.key == m.last().key
		switch {
		case isDamage && (damage.Key == p.key || damage.Err != nil): // it shows here, or at the next one's offset
		case isGap:
		case err == nil && last && p.offset > 0: // frames at the very end that do not fit
			if want := m.states[len(m.states)-2].db; !bytes.Equal(got, want) {
				t.Errorf("%s holds %s: neither an error nor the state before it", p.key, other.key)
			}
		case err == nil && p.offset == 0 && other.offset == 0 && !p.snapshot && !other.snapshot:
			// A whole WAL in the place of another: nothing in it tells its index.
		default:
			t.Errorf("%s holds %s: %v", p.key, other.key, err)
		}
		m.store.put(t, p.key, pack(t, p.content), p.time)
	}
	m.holds(t, Target{}, m.last())
}

// change stores other content for a part.
func (m *made) change(t testing.TB, p part, f func(content []byte) []byte) (back func()) {
	t.Helper()
	m.store.put(t, p.key, pack(t, f(bytes.Clone(p.content))), p.time)
	return func() { m.store.put(t, p.key, pack(t, p.content), p.time) }
}

// TestBrokenChain: a frame whose checksum, salt or page number is not the next one's
// ends a WAL. In the middle that is damage; at the very end what is before it counts.
func TestBrokenChain(t *testing.T) {
	t.Parallel()
	m := oneChain(t, 13)
	const frame = wal.FrameHeaderSize + 512
	first := func(p part) int { // offset of the first frame
		if p.offset == 0 {
			return wal.FileHeaderSize
		}
		return 0
	}
	for i, p := range m.parts {
		if p.snapshot {
			continue
		}
		for what, f := range map[string]func(frame []byte){
			"page number": func(b []byte) { b[3]++ },
			"commit":      func(b []byte) { b[7]++ },
			"salt":        func(b []byte) { b[9]++ },
			"checksum":    func(b []byte) { b[20]++ },
			"page":        func(b []byte) { b[wal.FrameHeaderSize+100]++ },
			"page 0":      func(b []byte) { clear(b[:4]) },
		} {
			back := m.change(t, p, func(b []byte) []byte { f(b[first(p):]); return b })
			if i+1 == len(m.parts) {
				m.endsBefore(t, what, i)
			} else {
				m.wantDamage(t, what, p.key)
				_, _, err := m.restored(t, Target{Time: p.time}) // more follows, though not for this target
				if damage, ok := errors.AsType[*levels.DamageError](err); !ok || damage.Key != p.key {
					t.Errorf("%s, by time: %v, want a DamageError of %s", what, err, p.key)
				}
			}
			back()
		}
		for what, n := range map[string]int{"cut inside a frame": len(p.content) - 100, "cut inside the last header": len(p.content) - frame + 5} {
			back := m.change(t, p, func(b []byte) []byte { return b[:n] })
			if i+1 < len(m.parts) {
				if _, _, err := m.restored(t, Target{}); !errors.As(err, new(*GapError)) && !errors.As(err, new(*levels.DamageError)) {
					t.Errorf("%s of %s: %v", what, p.key, err)
				}
			} else if _, _, err := m.restored(t, Target{}); err != nil {
				t.Errorf("%s of %s: %v", what, p.key, err)
			}
			back()
		}
		if p.offset > 0 {
			continue
		}
		for what, f := range map[string]func(b []byte){
			"magic":        func(b []byte) { b[0]++ },
			"version":      func(b []byte) { b[7]++ },
			"page size":    func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1024) },
			"sequence":     func(b []byte) { b[15]++ },
			"its checksum": func(b []byte) { b[31]++ },
		} {
			back := m.change(t, p, func(b []byte) []byte { f(b); return b })
			m.wantDamage(t, "header: "+what, p.key)
			back()
		}
		back := m.change(t, p, func(b []byte) []byte { return b[:20] })
		if i+1 == len(m.parts) || m.parts[i+1].offset == 0 {
			m.wantDamage(t, "header cut off", p.key)
		}
		back()
	}
	m.holds(t, Target{}, m.last())
}

// endsBefore fails the test unless the database is as before part i, and the frames
// left out are told.
func (m *made) endsBefore(t testing.TB, what string, i int) {
	t.Helper()
	told := ""
	got, _, err := m.restored(t, Target{}, func(c *Config) { c.OnTrouble = func(err error) { told += err.Error() } })
	if err != nil || !bytes.Equal(got, m.states[i-1].db) || !strings.Contains(told, m.parts[i].key) {
		t.Errorf("%s in the last segment: %v, told %q; want the state before it", what, err, told)
	}
	m.checks(t, what+" in the last segment", false, true)
}

// TestOverlap: a segment that reaches beyond where the next one begins.
func TestOverlap(t *testing.T) {
	t.Parallel()
	m := oneChain(t, 15)
	for i, p := range m.parts[:len(m.parts)-1] {
		next := m.parts[i+1]
		if p.snapshot || next.offset == 0 {
			continue
		}
		back := m.change(t, p, func(b []byte) []byte { return append(b, next.content[:wal.FrameHeaderSize+512]...) })
		m.wantDamage(t, "overlap", next.key)
		if _, _, err := m.restored(t, Target{}); err == nil || !strings.Contains(err.Error(), "reaches to offset") {
			t.Errorf("overlap: %v", err)
		}
		back()
	}
}

// TestOtherPageSize: a WAL of another database.
func TestOtherPageSize(t *testing.T) {
	t.Parallel()
	m, other := oneChain(t, 17), makeUp(t, shape{seed: 17, pageSize: 1024, generations: 1, indexes: 1, segments: 1, pages: 3})
	m.change(t, m.last().part, func([]byte) []byte { return other.last().content })
	wal := m.last().part
	for _, p := range m.parts {
		if p.index == wal.index && p.offset == 0 {
			wal = p
		}
	}
	m.change(t, wal, func([]byte) []byte { return other.last().content })
	m.wantDamage(t, "other page size", wal.key)
}

// TestOpenTransaction: one that ends in no commit is not applied; where another WAL
// follows, its end is missing.
func TestOpenTransaction(t *testing.T) {
	t.Parallel()
	const frame = wal.FrameHeaderSize + 512
	m := oneChain(t, 19)
	for i, p := range m.parts {
		ends := i+1 == len(m.parts) || m.parts[i+1].index != p.index
		if p.snapshot || !ends {
			continue
		}
		body := p.content
		if p.offset == 0 {
			body = body[wal.FileHeaderSize:]
		}
		commits := func(n int) bool { return binary.BigEndian.Uint32(body[n*frame+4:]) != 0 }
		n := len(body)/frame - 1 // frames without the last one
		if n == 0 || commits(n-1) {
			continue // it was a transaction of one frame
		}
		back := m.change(t, p, func(b []byte) []byte { return b[:len(b)-frame] })
		if i+1 < len(m.parts) {
			m.wantDamage(t, "open transaction", p.key)
			m.checks(t, "open transaction", false, true)
		} else {
			got, result, err := m.restored(t, Target{})
			for n > 0 && !commits(n-1) {
				n--
			}
			if want := p.offset + int64(len(p.content)-len(body)+n*frame); err != nil || result.Offset != want {
				t.Errorf("open transaction at the end: %+v, %v, want offset %d", result, err, want)
			}
			if n == 0 && !bytes.Equal(got, m.states[i-1].db) {
				t.Error("open transaction at the end: another state than that before it")
			}
			m.checks(t, "open transaction at the end", false, false)
		}
		back()
	}
}

// TestNotADatabase: snapshots that are something else.
func TestNotADatabase(t *testing.T) {
	t.Parallel()
	m := oneChain(t, 23)
	snapshot := m.parts[0]
	for what, content := range map[string][]byte{
		"nothing":         nil,
		"short":           snapshot.content[:99],
		"another file":    bytes.Repeat([]byte("x"), 4096),
		"part of a page":  snapshot.content[:len(snapshot.content)-1],
		"wrong page size": append(append(bytes.Clone(snapshot.content[:16]), 3, 3), snapshot.content[18:]...),
	} {
		m.change(t, snapshot, func([]byte) []byte { return content })
		m.wantDamage(t, what, snapshot.key)
		m.checks(t, what, false, true)
	}
	m.store.put(t, snapshot.key, []byte("age-encryption.org/v1\n-> X25519 "), snapshot.time)
	if _, _, err := m.restored(t, Target{}); !errors.Is(err, errEncrypted) || errors.As(err, new(*levels.DamageError)) || !strings.Contains(err.Error(), snapshot.key) {
		t.Errorf("encrypted: %v", err)
	}
}

// TestOlderSnapshot: a damaged snapshot is passed over where an older one leads to
// the same point, and told; never for the sake of another generation.
func TestOlderSnapshot(t *testing.T) {
	t.Parallel()
	m, snapshots := withSnapshots(t, 3)
	for i, p := range slices.Backward(snapshots) {
		m.store.put(t, p.key, []byte("rubbish"), p.time)
		var told []error
		got, _, err := m.restored(t, Target{}, func(c *Config) { c.OnTrouble = func(err error) { told = append(told, err) } })
		if i == 0 {
			_, _, byTime := m.restored(t, Target{Time: m.last().time}) // the other generation has a snapshot from before that
			for _, err := range []error{err, byTime} {
				if damage, ok := errors.AsType[*levels.DamageError](err); !ok || damage.Key != p.key {
					t.Errorf("all damaged: %v, want a DamageError of %s", err, p.key)
				}
			}
			break
		}
		if err != nil || !bytes.Equal(got, m.last().db) || len(told) != len(snapshots)-i {
			t.Errorf("damaged from %s on: %v, told %v", p.key, err, told)
		}
	}
}

// withSnapshots makes up an archive whose newest generation has n snapshots or more.
func withSnapshots(t testing.TB, n int) (m *made, snapshots []part) {
	t.Helper()
	for seed := uint64(1); len(snapshots) < n; seed++ {
		m, snapshots = makeUp(t, shape{seed: seed, pageSize: 512, generations: 2, indexes: 5, segments: 3, pages: 4}), nil
		for _, p := range m.parts {
			if p.snapshot && p.generation == m.last().generation {
				snapshots = append(snapshots, p)
			}
		}
	}
	return m, snapshots
}

// TestRetention deletes, between the listing and the first request, what the newest
// point rested on, and has stored a newer snapshot before that.
func TestRetention(t *testing.T) {
	t.Parallel()
	m, snapshots := withSnapshots(t, 2)
	newest := snapshots[len(snapshots)-1]
	back := m.without(t, newest)
	var once sync.Once
	m.store.onGet = func(string) error {
		once.Do(func() {
			back()
			for _, p := range m.parts {
				if p.generation == newest.generation && p.index < newest.index {
					_ = m.without(t, p)
				}
			}
		})
		return nil
	}
	var told []error
	got, result, err := m.restored(t, Target{}, func(c *Config) { c.OnTrouble = func(err error) { told = append(told, err) } })
	if err != nil || !bytes.Equal(got, m.last().db) {
		t.Fatalf("%v, told %v", err, told)
	}
	if result.Snapshot.Key != newest.key || len(told) != 1 {
		t.Errorf("from %s, told %v", result.Snapshot.Key, told)
	}
}

// TestListedAndNotThere: the listing says one thing and each request another.
func TestListedAndNotThere(t *testing.T) {
	t.Parallel()
	m := oneChain(t, 29)
	for _, p := range m.parts {
		m.store.onGet = func(key string) error {
			if key == p.key {
				return fmt.Errorf("get %s: %w", key, fs.ErrNotExist)
			}
			return nil
		}
		if _, _, err := m.restored(t, Target{}); err == nil || !strings.Contains(err.Error(), p.key) {
			t.Errorf("%v, want an error that names %s", err, p.key)
		}
		m.checks(t, p.key, false, true)
	}
	m.store.onGet = nil
	for i, p := range m.parts { // deleted while it is checked
		var once sync.Once
		var back func()
		m.store.onGet = func(key string) error {
			if key == p.key {
				once.Do(func() { back = m.without(t, p) })
			}
			return nil
		}
		report, err := Check(t.Context(), CheckConfig{Store: m.store, DB: dbName, Whole: func(string) bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range report.Problems {
			if !problem.Gap {
				t.Errorf("%s deleted meanwhile: %+v, want gaps alone", p.key, problem)
			}
		}
		if lost := p.snapshot || p.offset == 0 && i+1 < len(m.parts); lost != (len(report.Problems) > 0) {
			t.Errorf("%s deleted meanwhile: problems %v", p.key, report.Problems)
		}
		back()
	}
}

// TestRefused: what a restore does not touch, and what it leaves behind: nothing.
func TestRefused(t *testing.T) {
	t.Parallel()
	m := oneChain(t, 31)
	dir := t.TempDir()
	file := filepath.Join(dir, "there.db")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	try := func(ctx context.Context, path string, change func(*Config)) error {
		cfg := Config{Store: m.store, DB: dbName, Path: path}
		change(&cfg)
		_, err := Restore(ctx, cfg)
		return err
	}
	same := func(*Config) {}
	stop, cancel := context.WithCancelCause(t.Context())
	wrong, enough := errors.New("wrong"), errors.New("enough")
	for what, c := range map[string]struct {
		err  error
		want error
	}{
		"exists":       {try(t.Context(), file, same), restore.ErrOutputExists},
		"directory":    {try(t.Context(), dir, func(c *Config) { c.Force = true }), restore.ErrOutputDir},
		"no directory": {try(t.Context(), filepath.Join(dir, "no", "out.db"), same), restore.ErrNoDir},
		"plan refused": {try(t.Context(), filepath.Join(dir, "a.db"), func(c *Config) { c.OnPlan = func(*Plan) error { return wrong } }), wrong},
		"check fails":  {try(t.Context(), filepath.Join(dir, "b.db"), func(c *Config) { c.Check = func(context.Context, string) error { return wrong } }), wrong},
		"cancelled": {try(stop, filepath.Join(dir, "c.db"), func(c *Config) {
			c.Check = func(context.Context, string) error { cancel(enough); return nil }
		}), enough},
		"cancelled before": {try(stop, filepath.Join(dir, "c.db"), same), enough},
		"busy": {func() error {
			out, err := restore.NewOutput(filepath.Join(dir, "d.db"), true)
			if err != nil {
				return err
			}
			defer out.Close()
			return errors.Join(try(t.Context(), filepath.Join(dir, "d.db"), same), out.Discard())
		}(), restore.ErrBusy},
		"another database": {try(t.Context(), filepath.Join(dir, "e.db"), func(c *Config) { c.DB = "other" }), nil},
	} {
		if c.err == nil || c.want != nil && !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", what, c.err, c.want)
		}
	}
	entries, err := os.ReadDir(dir)
	if b, errRead := os.ReadFile(file); err != nil || len(entries) != 1 || string(b) != "mine" {
		t.Errorf("left behind: %v, %v, %q, %v", entries, err, b, errRead)
	}
	if err := try(t.Context(), file, func(c *Config) { c.Force = true }); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, m.last().db) {
		t.Errorf("forced: %d bytes, %v", len(b), err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".there.db.restore")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestFrameBuffer: frames come back in order, from the file too, as often as it is
// used.
func TestFrameBuffer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := frameBuffer{dir: dir}
	const size = 1000
	for _, n := range []int{3, 2*maxOpen/size + 7, 0, 5, maxOpen/size + 1} {
		for _, drop := range []bool{true, false} {
			for i := range n {
				frame := make([]byte, size)
				binary.LittleEndian.PutUint32(frame[500:], uint32(i))
				if err := b.add(frame); err != nil {
					t.Fatal(err)
				}
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
				t.Fatalf("%v, %v", entries, err)
			}
			if drop {
				if err := b.reset(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			next := 0
			err := b.drain(size, func(frame []byte) error {
				if got := int(binary.LittleEndian.Uint32(frame[500:])); len(frame) != size || got != next {
					return fmt.Errorf("frame %d, want %d", got, next)
				}
				next++
				return nil
			})
			if err != nil || next != n {
				t.Fatalf("%d frames, %v, want %d", next, err, n)
			}
		}
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
}

// TestLargeTransaction: one that does not fit into memory waits in a file, and
// leaves none.
func TestLargeTransaction(t *testing.T) {
	t.Parallel()
	m := makeUp(t, shape{seed: 37, pageSize: 65536, generations: 1, indexes: 1, segments: 1, pages: 110})
	largest := 0
	for _, p := range m.parts {
		if p.snapshot {
			continue
		}
		open := 0
		for frames := p.content[wal.FileHeaderSize:]; len(frames) > 0; frames = frames[65536+wal.FrameHeaderSize:] {
			open += 65536 + wal.FrameHeaderSize
			largest = max(largest, open)
			if binary.BigEndian.Uint32(frames[4:]) != 0 {
				open = 0
			}
		}
	}
	if largest < maxOpen+1<<20 {
		t.Fatalf("the largest transaction has %d bytes: choose another seed", largest)
	}
	m.holds(t, Target{}, m.last())
}

// TestDownload: so many requests at a time and no more, and never far ahead of what
// is read.
func TestDownload(t *testing.T) {
	t.Parallel()
	const parallelism, n = 4, 60
	s := newClocked()
	var objects []Object
	for i := range n {
		o := Object{Key: fmt.Sprintf("x/%d", i), Size: 10}
		s.put(t, o.Key, []byte(fmt.Sprintf("object %3d", i)), started)
		objects = append(objects, o)
	}
	large := Object{Key: "x/large", Size: 2*pieceSize + 5}
	body := bytes.Repeat([]byte("large"), int(large.Size)/5)
	large.Size = int64(len(body))
	s.put(t, large.Key, body, started)
	s.hold = make(chan struct{})
	f := download(t.Context(), s, append(objects, large), restore.Options{Parallelism: parallelism})
	defer f.close()
	asked := func(want int64) {
		t.Helper()
		testenv.Until(t, 10*time.Second, "requests", func() error {
			if got := s.gets.Load(); got != want {
				return fmt.Errorf("%d, want %d", got, want)
			}
			return nil
		})
	}
	asked(parallelism)
	close(s.hold)
	asked(2 * parallelism) // as many as may wait for the reader
	for i, o := range objects {
		asked(min(int64(2*parallelism+i), n+large.pieces()))
		b, err := io.ReadAll(&stored{fetch: f, left: o.pieces()})
		if want := fmt.Sprintf("object %3d", i); err != nil || string(b) != want {
			t.Fatalf("%q, %v, want %q", b, err, want)
		}
	}
	if b, err := io.ReadAll(&stored{fetch: f, left: large.pieces()}); err != nil || !bytes.Equal(b, body) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if top := s.top.Load(); top != parallelism {
		t.Errorf("%d requests at a time, want %d", top, parallelism)
	}
	if got := f.fetched.Load(); got != n*10+large.Size {
		t.Errorf("%d bytes were fetched", got)
	}
}
