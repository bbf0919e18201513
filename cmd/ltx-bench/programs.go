package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// program is one running ltx-pub or ltx-sub.
type program struct {
	cmd  *exec.Cmd
	http string
	log  bytes.Buffer
	peak int64 // bytes of resident memory, at its end
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start runs a program and waits until its health endpoint answers.
func (b *bench) start(ctx context.Context, name string, args ...string) (*program, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p := &program{http: addr}
	p.cmd = exec.Command(filepath.Join(b.bin, name), append([]string{"run", "--http", addr}, args...)...)
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s (make build first): %w", name, err)
	}
	if err := p.wait(ctx, func() bool { return p.get("/healthz", nil) == nil }); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w: %s", name, err, p.log.String()), p.cmd.Process.Kill())
	}
	return p, nil
}

func (p *program) wait(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (p *program) get(path string, into any) error {
	resp, err := http.Get("http://" + p.http + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// stop ends the program and keeps its peak memory.
func (p *program) stop() error {
	p.peak = p.memory("VmHWM")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, p.log.String())
	}
	return nil
}

// memory reads one figure of /proc/PID/status, in bytes.
func (p *program) memory(field string) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// cpu returns the processor time used so far.
func (p *program) cpu() time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// pair is a publisher with an embedded server and a subscriber.
type pair struct {
	pub, sub         *program
	url              string
	primary, replica string
}

// publish starts ltx-pub on primary, which must exist.
func (b *bench) publish(ctx context.Context, dir, primary string, more ...string) (*program, string, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	args := append([]string{"--embedded", filepath.Join(dir, "nats"), "--embedded-listen", addr}, more...)
	p, err := b.start(ctx, "ltx-pub", append(args, primary)...)
	return p, "nats://" + addr, err
}

func (b *bench) startPair(ctx context.Context, dir, primary string, more ...string) (*pair, error) {
	p := &pair{primary: primary, replica: filepath.Join(dir, "replica.db")}
	var err error
	if p.pub, p.url, err = b.publish(ctx, dir, primary, more...); err != nil {
		return nil, err
	}
	if p.sub, err = b.start(ctx, "ltx-sub", "--server", p.url, name(primary)+"="+p.replica); err != nil {
		return nil, errors.Join(err, p.pub.stop())
	}
	if err := p.sub.wait(ctx, func() bool { _, err := os.Stat(p.replica); return err == nil }); err != nil {
		return nil, errors.Join(fmt.Errorf("replica does not appear: %w: %s%s", err, p.sub.log.String(), p.pub.log.String()), p.stop())
	}
	return p, p.caughtUp(ctx)
}

func name(path string) string { return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)) }

func (p *pair) stop() error { return errors.Join(p.sub.stop(), p.pub.stop()) }

type status struct {
	TXID    string `json:"txid"`
	Capture struct {
		Commits      uint64        `json:"commits"`
		Restarts     uint64        `json:"wal_restarts"`
		WALBytes     int64         `json:"wal_bytes"`
		MaxWriteHold time.Duration `json:"max_write_hold_ns"`
		WALFrames    uint32        `json:"wal_frames"`
		Captured     uint32        `json:"wal_captured"`
	} `json:"capture"`
	PublishedFiles uint64 `json:"published_files"`
}

func (p *program) status() (status, error) {
	var all []status
	if err := p.get("/status", &all); err != nil {
		return status{}, err
	}
	if len(all) == 0 {
		return status{}, errors.New("no status")
	}
	return all[0], nil
}

// caughtUp waits until the replica is at the publisher's position.
func (p *pair) caughtUp(ctx context.Context) error {
	same := 0
	return p.sub.wait(ctx, func() bool {
		a, err1 := p.pub.status()
		b, err2 := p.sub.status()
		if err1 == nil && err2 == nil && a.TXID == b.TXID && a.Capture.WALFrames == a.Capture.Captured && a.TXID != "0000000000000000" {
			same++
		} else {
			same = 0
		}
		return same >= 3
	})
}
