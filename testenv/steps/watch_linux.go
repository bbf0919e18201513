package steps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watch answers for the system calls of one process. Safe for concurrent use.
type Watch struct {
	ln   *net.UnixListener
	done chan struct{}
	mu   struct {
		sync.Mutex
		at  func(Step) bool // nil: nothing is stopped
		hit chan Step
	}
}

// New returns a Watch whose process offers itself to Addr. It must do so, or
// Close be called.
func New() (*Watch, error) {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket"}) // the kernel chooses a name
	if err != nil {
		return nil, fmt.Errorf("listen for a process to watch: %w", err)
	}
	w := &Watch{ln: ln, done: make(chan struct{})}
	go w.run()
	return w, nil
}

// Addr is what the process gives to Offer.
func (w *Watch) Addr() string { return w.ln.Addr().String() }

// Stop stops the process before the first step from now on for which at is
// true; that step is then sent. The process makes no step any more: Kill it. At
// is called by one goroutine at a time, and is quick.
func (w *Watch) Stop(at func(Step) bool) <-chan Step {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.at, w.mu.hit = at, make(chan Step, 1)
	return w.mu.hit
}

// Close returns when the process is gone, or at once when none was offered.
func (w *Watch) Close() {
	_ = w.ln.Close()
	<-w.done
}

func (w *Watch) run() {
	defer close(w.done)
	fd, err := receive(w.ln)
	if err != nil {
		return // closed
	}
	defer unix.Close(fd)
	for {
		n, ok := next(fd)
		if !ok {
			return
		}
		if w.stops(n) {
			waitGone(fd)
			return
		}
		resume(fd, n)
	}
}

// stops reports whether the process is to be left where it is.
func (w *Watch) stops(n *notification) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.at == nil {
		return false
	}
	s, ok := n.step()
	if !ok || !w.mu.at(s) {
		return false
	}
	w.mu.hit <- s
	return true
}

// notification is struct seccomp_notif of linux/seccomp.h.
type notification struct {
	id    uint64
	tid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// next waits for the process to make a call; false when it is gone.
func next(fd int) (*notification, bool) {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, false
		}
		if p[0].Revents&unix.POLLIN == 0 {
			if p[0].Revents != 0 {
				return nil, false
			}
			continue
		}
		n := &notification{}
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
		if e == 0 {
			return n, true
		}
		if e != unix.ENOENT && e != unix.EINTR { // ENOENT: the thread was killed meanwhile
			return nil, false
		}
	}
}

func resume(fd int, n *notification) {
	r := response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	// An error means that the thread is gone.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
}

// waitGone waits for the end of the process without letting it do anything.
func waitGone(fd int) {
	for {
		p := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(p, -1); err != nil && !errors.Is(err, unix.EINTR) || p[0].Revents != 0 {
			return
		}
	}
}

// maxData is how much of a write is looked at.
const maxData = 4 << 10

func (n *notification) step() (s Step, ok bool) {
	s.Call, ok = calls[uintptr(n.nr)]
	if !ok {
		return s, false
	}
	switch uintptr(n.nr) {
	case unix.SYS_UNLINKAT:
		s.Path, ok = n.text(n.args[1])
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		s.Path, ok = n.text(n.args[3])
	case unix.SYS_OPENAT:
		if n.args[2]&unix.O_CREAT == 0 {
			return s, false
		}
		s.Path, ok = n.text(n.args[1])
	default:
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.tid, n.args[0]))
		s.Path, ok = strings.TrimSuffix(link, " (deleted)"), err == nil
	}
	switch uintptr(n.nr) {
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		s.Data, s.Offset = n.memory(n.args[1], int(min(n.args[2], maxData))), int64(n.args[3])
	case unix.SYS_WRITEV:
		s.Data = n.vectors(n.args[1], int(n.args[2]))
	}
	return s, ok
}

// vectors reads what a writev is about to write.
func (n *notification) vectors(at uint64, count int) (data []byte) {
	raw := n.memory(at, count*int(unsafe.Sizeof(unix.Iovec{})))
	for ; len(raw) >= 16 && len(data) < maxData; raw = raw[16:] {
		base, size := binary.NativeEndian.Uint64(raw), binary.NativeEndian.Uint64(raw[8:])
		data = append(data, n.memory(base, int(min(size, uint64(maxData-len(data)))))...)
	}
	return data
}

// text reads a string of the process.
func (n *notification) text(at uint64) (string, bool) {
	s, _, ok := strings.Cut(string(n.memory(at, unix.PathMax)), "\x00")
	return s, ok
}

// memory reads up to size bytes of the process; fewer where its memory ends.
func (n *notification) memory(at uint64, size int) []byte {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.tid))
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, size)
	got, _ := f.ReadAt(b, int64(at))
	return b[:got]
}

// receive accepts the one process that is watched.
func receive(ln *net.UnixListener) (fd int, err error) {
	defer ln.Close()
	c, err := ln.AcceptUnix()
	if err != nil {
		return -1, err
	}
	defer c.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return -1, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, fmt.Errorf("receive process to watch: %d messages, %w", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("receive process to watch: %d descriptors, %w", len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}

// Offer makes this process, with all its threads, one that is watched. Where
// the system does not allow that the error is [ErrUnsupported].
func Offer(addr string) error {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: addr})
	if err != nil {
		return fmt.Errorf("offer to be watched: %w", err)
	}
	defer c.Close()
	fd, err := filter()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, _, err := c.WriteMsgUnix([]byte{0}, unix.UnixRights(fd), nil); err != nil {
		return fmt.Errorf("offer to be watched: %w", err)
	}
	return nil
}

// filter makes the kernel ask about the calls, and returns where it does.
func filter() (fd int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	prog := program()
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH |
		unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV // a signal of Go's scheduler does not make the call twice
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&p)))
	if e != 0 {
		return -1, fmt.Errorf("%w: %w", ErrUnsupported, e)
	}
	return int(r), nil
}

// program asks about the calls of the table. Of writes, those to the standard
// streams and those of 8 bytes (a wake-up of Go's scheduler) go through.
func program() []unix.SockFilter {
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jgt  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K

		offNr, offFD, offCount = 0, 16, 32 // in struct seccomp_data, low halves
	)
	ask := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF}
	pass := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}
	prog := []unix.SockFilter{
		{Code: load, K: offNr},
		{Code: jeq, K: unix.SYS_WRITE, Jf: 6},
		{Code: load, K: offFD},
		{Code: jgt, K: 2, Jf: 2},
		{Code: load, K: offCount},
		{Code: jeq, K: 8, Jf: 1},
		pass,
		ask,
	}
	for nr := range calls {
		if nr != unix.SYS_WRITE {
			prog = append(prog, unix.SockFilter{Code: jeq, K: uint32(nr), Jf: 1}, ask)
		}
	}
	return append(prog, pass)
}

// calls are the ones that are asked about.
var calls = map[uintptr]string{
	unix.SYS_WRITE:     Write,
	unix.SYS_PWRITE64:  Write,
	unix.SYS_WRITEV:    Write,
	unix.SYS_FSYNC:     Sync,
	unix.SYS_RENAMEAT:  Rename,
	unix.SYS_RENAMEAT2: Rename,
	unix.SYS_UNLINKAT:  Remove,
	unix.SYS_FTRUNCATE: Truncate,
	unix.SYS_OPENAT:    Create,
	unix.SYS_LISTEN:    Listen,
}
