package capture

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Notifier tells captures that a -wal file was written or a database file was
// replaced. One serves any number of databases: the operating system limits how
// many watchers there can be. It watches the files, not
// their directories: events of a watched directory carry names, and writers pay.
type Notifier struct {
	w    *fsnotify.Watcher
	done chan struct{}
	mu   struct {
		sync.Mutex
		wake map[string]chan struct{} // by file
	}
}

// NewNotifier starts a notifier. Close ends it.
func NewNotifier() (*Notifier, error) {
	w, err := fsnotify.NewBufferedWatcher(1024)
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	n := &Notifier{w: w, done: make(chan struct{})}
	n.mu.wake = map[string]chan struct{}{}
	go n.run()
	return n, nil
}

// Close stops watching and waits for the goroutine to end.
func (n *Notifier) Close() error {
	err := n.w.Close()
	<-n.done
	return err
}

func (n *Notifier) run() {
	defer close(n.done)
	for {
		select {
		case ev, ok := <-n.w.Events:
			if !ok {
				return
			}
			if ev.Op != fsnotify.Write || strings.HasSuffix(ev.Name, "-wal") { // a checkpoint writes to the database
				n.notify(ev.Name)
			}
		case _, ok := <-n.w.Errors:
			if !ok {
				return
			}
			n.notifyAll() // an overflow: anything may have happened
		}
	}
}

func (n *Notifier) notify(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ch := n.mu.wake[path]; ch != nil {
		poke(ch)
	}
}

func (n *Notifier) notifyAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, ch := range n.mu.wake {
		poke(ch)
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// watch pokes ch when the file at path changes: a -wal file when it is written
// to, others when they are replaced. The slow poll of the capture is the net
// under it: a file that cannot be watched is no error.
func (n *Notifier) watch(path string, ch chan struct{}) error {
	path = filepath.Clean(path)
	n.mu.Lock()
	n.mu.wake[path] = ch
	n.mu.Unlock()
	if err := n.w.Add(path); err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	return nil
}

func (n *Notifier) unwatch(path string) {
	path = filepath.Clean(path)
	n.mu.Lock()
	delete(n.mu.wake, path)
	n.mu.Unlock()
	_ = n.w.Remove(path) // gone with its file, or with the watcher
}
