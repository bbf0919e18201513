//go:build cgo

package wal

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestHolderNamesAForeignProcess(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		path, f := newDatabase(t, kind, 4096)
		d := openDB(t, path)
		if h, err := d.Holder(Write); err != nil || h.Held {
			t.Fatalf("%+v, %v", h, err)
		}
		f.exec("BEGIN IMMEDIATE")
		if h, err := d.Holder(Write); err != nil || h != (Holder{true, f.pid()}) {
			t.Fatalf("%+v, %v; want pid %d", h, err, f.pid())
		}
		if err := d.TryLock(Write); !errors.Is(err, ErrBusy) {
			t.Fatalf("TryLock: %v", err)
		}
		start := time.Now()
		if err := d.LockWithin(t.Context(), Write, 20*time.Millisecond); !errors.Is(err, ErrBusy) || time.Since(start) < 20*time.Millisecond {
			t.Fatalf("LockWithin: %v after %v", err, time.Since(start))
		}
		cause := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if err := d.LockWithin(ctx, Write, time.Hour); !errors.Is(err, cause) {
			t.Fatalf("LockWithin, cancelled: %v", err)
		}
		f.exec("COMMIT")
		must(t, d.LockWithin(t.Context(), Write, time.Second))
		if h, err := d.Holder(Write); err != nil || h.Held {
			t.Fatalf("our own lock: %+v, %v", h, err)
		}
		if _, err := f.try("BEGIN IMMEDIATE"); err == nil {
			t.Fatal("a foreign writer came in while we held WRITE")
		}
		must(t, d.Unlock(Write))
		must(t, d.Unlock(Write))
		f.exec("BEGIN IMMEDIATE")
		f.kill()
		within(t, "the killed writer's lock", func() bool { return d.TryLock(Write) == nil })
		must(t, d.Unlock(Write))
	})
}

func TestTwoDBsOfOneProcessExcludeEachOther(t *testing.T) {
	path, _ := newDatabase(t, "go", 4096)
	a, b := openDB(t, path), openDB(t, path)
	must(t, a.TryLock(Ckpt))
	if err := b.TryLock(Ckpt); !errors.Is(err, ErrBusy) {
		t.Fatalf("other DB: %v", err)
	}
	if err := a.TryLock(Ckpt); !errors.Is(err, ErrBusy) {
		t.Fatalf("same DB: %v", err)
	}
	if h, err := b.Holder(Ckpt); err != nil || h != (Holder{Held: true}) {
		t.Fatalf("holder %+v, %v", h, err)
	}
	must(t, a.Unlock(Ckpt))
	must(t, b.TryLock(Ckpt))
	must(t, b.Unlock(Ckpt))
	must(t, a.Pin())
	must(t, b.Pin())
	if a.pin.slot == b.pin.slot {
		t.Fatalf("both pin slot %d", a.pin.slot)
	}
}

func TestLockNames(t *testing.T) {
	for l, want := range map[Lock]string{Write: "WRITE", Ckpt: "CKPT", Recover: "RECOVER", Read(0): "READ0", Read(4): "READ4", dms: "DMS"} {
		if got := l.String(); got != want {
			t.Errorf("%d is %q, want %q", int(l), got, want)
		}
	}
}

func TestLockFile(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	if _, err := LockFile(path); !errors.Is(err, ErrBusy) {
		t.Fatalf("beside an open connection: %v", err)
	}
	f.close()
	lock, err := LockFile(path)
	must(t, err)
	g := startForeign(t, "python", path)
	if _, err := g.try("SELECT * FROM t"); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Fatalf("a reader past the lock: %v", err)
	}
	must(t, lock.Unlock())
	g.intact()
}

func TestAlone(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		path, f := newDatabase(t, kind, 4096)
		d := openDB(t, path)
		if alone, err := d.Alone(); err != nil || alone {
			t.Fatalf("alone %t, %v, with a connection of another process", alone, err)
		}
		f.kill()
		within(t, "to be alone", func() bool {
			alone, err := d.Alone()
			must(t, err)
			return alone
		})
	})
}
