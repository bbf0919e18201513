package publisher

import (
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/superfly/ltx"
)

func at(n int) ltx.Pos { return ltx.NewPos(ltx.TXID(n), ltx.ChecksumFlag|ltx.Checksum(n)) }

// fork is another position with the same number.
func fork(n int) ltx.Pos { return ltx.NewPos(ltx.TXID(n), ltx.ChecksumFlag|ltx.Checksum(n)<<8) }

func TestDecide(t *testing.T) {
	t.Parallel()
	noon := time.UnixMilli(1e12)
	mine := func(n int) tail { return tail{pos: at(n), writer: "me", host: "here", time: noon} }
	theirs := func(n int) tail { return tail{pos: at(n), writer: "you", host: "there", time: noon} }
	// here was captured up to pos; the spool holds the files beyond first.
	here := func(first, pos int, bases ...ltx.Pos) local {
		return local{pos: at(pos), writer: "me", host: "here", time: noon, bases: bases, known: func(txid ltx.TXID) (ltx.Pos, bool) {
			return at(int(txid)), int(txid) >= first && int(txid) <= pos
		}}
	}
	fresh := local{writer: "me", host: "here", known: func(ltx.TXID) (ltx.Pos, bool) { return ltx.Pos{}, false }}
	with := func(t tail, f func(*tail)) tail { f(&t); return t }
	behind := func(n int, l local) local { l.after = ltx.TXID(n); return l }
	joined := func(n int, l local) local { l.joined = at(n); return l }
	start := ltx.NewPos(20, nothing)
	begins := tail{pos: start, writer: "you", loose: true}
	old := func(t *tail) { t.time = t.time.Add(lossWindow + time.Second) }
	loose := func(t *tail) { t.loose = true }

	for name, c := range map[string]struct {
		t     tail
		l     local
		force bool
		want  plan
	}{
		"nothing anywhere":                   {tail{}, fresh, false, plan{do: reseed}},
		"at the head":                        {mine(9), here(5, 9), false, plan{do: goOn, at: at(9)}},
		"files wait":                         {mine(7), here(5, 9), false, plan{do: goOn, at: at(7)}},
		"acknowledged ones were lost":        {mine(5), here(5, 9), false, plan{do: goOn, at: at(5)}},
		"more was lost than is kept":         {mine(3), here(5, 9), false, plan{do: reseed, at: at(9)}},
		"… a full file is kept":              {mine(3), here(5, 9, at(6)), false, plan{do: goOn, at: at(6)}},
		"… an older full file is kept":       {mine(3), here(1, 9, at(0), at(6)), false, plan{do: goOn, at: at(3)}},
		"stream empty":                       {tail{}, here(5, 9), false, plan{do: reseed, at: at(9)}},
		"stream empty, all is kept":          {tail{}, here(0, 9, ltx.Pos{}), false, plan{do: goOn}},
		"stream empty, a full one is kept":   {tail{}, here(5, 9, at(6), at(8)), false, plan{do: goOn, at: at(6)}},
		"first file unfinished":              {tail{writer: "me", loose: true}, here(0, 1, ltx.Pos{}), false, plan{do: goOn}},
		"their first file unfinished":        {tail{writer: "you", loose: true}, fresh, false, plan{do: reseed}},
		"full file unfinished":               {with(mine(6), loose), here(5, 9, at(6)), false, plan{do: goOn, at: at(6)}},
		"full file unfinished and gone":      {with(mine(6), loose), here(5, 9), false, plan{do: reseed, at: at(9)}},
		"… and gone with what followed":      {with(mine(6), loose), here(1, 4), false, plan{do: reseed, at: at(6)}},
		"their full file unfinished":         {with(theirs(6), loose), here(5, 9), false, plan{do: prove, at: at(6), full: true}},
		"state directory lost":               {theirs(9), fresh, false, plan{do: prove, at: at(9)}},
		"somebody went on":                   {theirs(12), here(5, 9), false, plan{do: prove, at: at(12)}},
		"somebody took another way":          {with(theirs(7), func(t *tail) { t.pos = fork(7) }), here(5, 9), false, plan{do: prove, at: fork(7)}},
		"somebody is far behind":             {theirs(3), here(5, 9), false, plan{do: prove, at: at(3)}},
		"somebody else, where we were":       {theirs(7), here(5, 9), false, plan{do: goOn, at: at(7)}},
		"power loss":                         {mine(12), here(5, 9), false, plan{do: prove, at: at(12), elseReseed: true}},
		"power loss, and went on offline":    {with(mine(7), func(t *tail) { t.pos = fork(7) }), here(5, 9), false, plan{do: prove, at: fork(7), elseReseed: true}},
		"an old copy with its state":         {with(mine(12), old), here(5, 9), false, plan{do: prove, at: at(12)}},
		"a copy on another host":             {with(mine(12), func(t *tail) { t.host = "there" }), here(5, 9), false, plan{do: prove, at: at(12)}},
		"killed when forced":                 {theirs(12), joined(12, here(12, 12)), false, plan{do: goOn, at: at(12)}},
		"killed when forced, ahead":          {theirs(7), joined(7, here(9, 9)), false, plan{do: reseed, at: at(9)}},
		"… with the full file in the spool":  {theirs(7), joined(7, here(9, 10, at(9))), false, plan{do: goOn, at: at(9)}},
		"… and somebody went on since":       {theirs(8), joined(7, here(9, 9)), false, plan{do: prove, at: at(8)}},
		"killed behind their unfinished one": {with(theirs(6), loose), joined(6, here(9, 9)), false, plan{do: reseed, at: at(9)}},
		"forced":                             {theirs(12), here(5, 9), true, plan{do: reseed, at: at(12)}},
		"forced, ahead":                      {theirs(7), here(5, 9), true, plan{do: reseed, at: at(9)}},
		"forced, stream empty":               {tail{}, here(0, 9, ltx.Pos{}), true, plan{do: reseed, at: at(9)}},

		"an archive, nothing here":              {tail{}, behind(20, fresh), false, plan{do: reseed, at: start}},
		"an archive, its first file is kept":    {tail{}, behind(20, here(20, 21, start)), false, plan{do: goOn, at: start}},
		"an archive, their file unfinished":     {begins, behind(20, fresh), false, plan{do: reseed, at: start}},
		"… it went on since":                    {begins, behind(22, fresh), false, plan{do: reseed, at: ltx.NewPos(22, nothing)}},
		"an archive, we are ahead":              {mine(29), behind(20, here(25, 29)), false, plan{do: goOn, at: at(29)}},
		"an archive at our end":                 {mine(20), behind(20, here(15, 20)), false, plan{do: goOn, at: at(20)}},
		"an archive ahead of both":              {mine(9), behind(20, here(5, 9)), false, plan{do: refuse}},
		"an archive ahead, no state":            {theirs(9), behind(20, fresh), false, plan{do: refuse}},
		"an archive ahead, stream gone":         {tail{}, behind(20, here(5, 9)), false, plan{do: refuse}},
		"an archive ahead, the spool is not":    {mine(9), behind(20, here(5, 25)), false, plan{do: goOn, at: at(9)}},
		"an archive ahead, forced":              {mine(9), behind(20, here(5, 9)), true, plan{do: reseed, at: start}},
		"an archive, stream and state are gone": {tail{}, behind(29, fresh), false, plan{do: reseed, at: ltx.NewPos(29, nothing)}},
	} {
		if got := decide(c.t, c.l, c.force); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestTailOf(t *testing.T) {
	t.Parallel()
	noon := time.UnixMilli(1e12)
	meta := wire.Meta{Min: 7, Max: 7, Pre: at(6).PostApplyChecksum, Post: at(7).PostApplyChecksum, Writer: "me", Timestamp: noon, Part: 3, Parts: 3}
	head := func(f func(*wire.Meta)) stream.Head {
		m := meta
		f(&m)
		return stream.Head{Data: &stream.Message{Meta: m, Seq: 9}, Claim: &wire.Claim{Writer: "me", Host: "here"}}
	}
	for name, c := range map[string]struct {
		head stream.Head
		want tail
	}{
		"empty":                {stream.Head{}, tail{}},
		"whole":                {head(func(*wire.Meta) {}), tail{pos: at(7), writer: "me", host: "here", time: noon}},
		"unfinished":           {head(func(m *wire.Meta) { m.Part = 2 }), tail{pos: at(6), writer: "me", host: "here", time: noon}},
		"unfinished full file": {head(func(m *wire.Meta) { m.Part, m.Full = 2, true }), tail{pos: at(6), writer: "me", host: "here", time: noon, loose: true}},
		"claimed by another":   {head(func(m *wire.Meta) { m.Writer = "you" }), tail{pos: at(7), writer: "you", time: noon}},
	} {
		if got := tailOf(c.head); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
