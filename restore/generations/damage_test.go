package generations

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/objstore/levels"
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
