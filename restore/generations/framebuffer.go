package generations

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// frameBuffer holds the frames of a transaction until its commit: in memory, and
// those of a large one in a file without a name.
type frameBuffer struct {
	dir    string // of the file
	memory []byte
	file   *os.File // nil: not needed so far
	filed  int64    // bytes in it
}

// maxOpen bounds the frames in memory, bytes.
const maxOpen = 4 << 20

func (b *frameBuffer) add(frame []byte) error {
	if len(b.memory)+len(frame) > maxOpen {
		if err := b.spill(); err != nil {
			return fmt.Errorf("keep a large transaction: %w", err)
		}
	}
	b.memory = append(b.memory, frame...)
	return nil
}

// spill moves the frames in memory to the file.
func (b *frameBuffer) spill() (err error) {
	if b.file == nil {
		if b.file, err = os.CreateTemp(b.dir, ".restore-transaction-*"); err != nil {
			return err
		}
		if err := os.Remove(b.file.Name()); err != nil { // it lives as long as the descriptor
			return err
		}
	}
	n, err := b.file.WriteAt(b.memory, b.filed)
	b.filed += int64(n)
	b.memory = b.memory[:0]
	return err
}

// drain hands over all frames, of that size, in their order, and is empty then.
func (b *frameBuffer) drain(size int, each func(frame []byte) error) error {
	if b.filed > 0 {
		r := bufio.NewReaderSize(io.NewSectionReader(b.file, 0, b.filed), 1<<20)
		frame := make([]byte, size)
		for range b.filed / int64(size) {
			if _, err := io.ReadFull(r, frame); err != nil {
				return fmt.Errorf("read back a large transaction: %w", err)
			}
			if err := each(frame); err != nil {
				return err
			}
		}
	}
	for frames := b.memory; len(frames) > 0; frames = frames[size:] {
		if err := each(frames[:size]); err != nil {
			return err
		}
	}
	return b.reset()
}

// reset drops all frames.
func (b *frameBuffer) reset() error {
	b.memory = b.memory[:0]
	if b.filed == 0 {
		return nil
	}
	b.filed = 0
	return b.file.Truncate(0)
}

func (b *frameBuffer) close() error {
	if b.file == nil {
		return nil
	}
	return errors.Join(b.reset(), b.file.Close())
}
