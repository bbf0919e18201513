package natsobj

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// maxPlaces bounds the sequences in one meta message.
const maxPlaces = 512

// places says where in the stream the chunks of an object are: the sequence of
// each stride-th one. It is kept in the object's meta, as stride:first:steps,
// each step with the number of its repetitions.
type places struct {
	stride int
	seqs   []uint64
}

// thin returns the places of chunks with these sequences.
func thin(seqs []uint64) places {
	p := places{stride: 1}
	for (len(seqs)+p.stride-1)/p.stride > maxPlaces {
		p.stride *= 2
	}
	for i := 0; i < len(seqs); i += p.stride {
		p.seqs = append(p.seqs, seqs[i])
	}
	return p
}

func (p places) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d:", p.stride, p.seqs[0])
	for i := 1; i < len(p.seqs); {
		step, n := p.seqs[i]-p.seqs[i-1], 1
		for i += 1; i < len(p.seqs) && p.seqs[i]-p.seqs[i-1] == step; i++ {
			n++
		}
		fmt.Fprintf(&b, "%dx%d,", step, n)
	}
	return b.String()
}

// parsePlaces returns the zero value for what it does not understand.
func parsePlaces(text string) places {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return places{}
	}
	stride, err := strconv.Atoi(parts[0])
	if err != nil || stride < 1 {
		return places{}
	}
	seq, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil || seq == 0 {
		return places{}
	}
	p := places{stride: stride, seqs: []uint64{seq}}
	for step := range strings.SplitSeq(strings.TrimSuffix(parts[2], ","), ",") {
		if step == "" {
			continue
		}
		size, times, _ := strings.Cut(step, "x")
		by, err := strconv.ParseUint(size, 10, 32)
		n, err2 := strconv.Atoi(times)
		if err != nil || err2 != nil || by < 1 || n < 1 || n > maxPlaces {
			return places{}
		}
		for range n {
			seq += by
			p.seqs = append(p.seqs, seq)
		}
		if len(p.seqs) > maxPlaces {
			return places{}
		}
	}
	return p
}

// fit reports whether p can belong to o, whose chunks must all be of one size.
func (p places) fit(o jetstream.ObjectInfo) bool {
	if p.stride == 0 || o.Opts == nil || o.Opts.ChunkSize == 0 {
		return false
	}
	size, chunks := uint64(o.Opts.ChunkSize), uint64(o.Chunks)
	return o.Size <= size*chunks && o.Size > size*(chunks-1) && chunks > 0 &&
		len(p.seqs) == (int(chunks)+p.stride-1)/p.stride
}

// span is what is known of where a chunk lies: the chunk low is at lowSeq, and
// the chunk high is not before highSeq.
type span struct {
	low, high       int
	lowSeq, highSeq uint64
}

// around returns the span of chunk k of an object that ends before seq end.
func (p places) around(k, chunks int, end uint64) span {
	i := k / p.stride
	s := span{low: i * p.stride, lowSeq: p.seqs[i], high: chunks, highSeq: end}
	if i+1 < len(p.seqs) {
		s.high, s.highSeq = s.low+p.stride, p.seqs[i+1]
	}
	return s
}

// guess returns where chunk k should be, by proportion; exact where the chunks
// follow one another.
func (s span) guess(k int) uint64 {
	off, width := uint64(k-s.low), uint64(s.high-s.low)
	if s.highSeq < s.lowSeq+width {
		return s.lowSeq + off
	}
	return s.lowSeq + max(off, off*(s.highSeq-s.lowSeq)/width)
}
