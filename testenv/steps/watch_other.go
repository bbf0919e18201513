//go:build !linux

package steps

// Watch is not to be had here.
type Watch struct{}

// New returns ErrUnsupported.
func New() (*Watch, error) { return nil, ErrUnsupported }

// Addr is what the process gives to Offer.
func (w *Watch) Addr() string { return "" }

// Stop stops nothing.
func (w *Watch) Stop(func(Step) bool) <-chan Step { return nil }

// Close does nothing.
func (w *Watch) Close() {}

// Offer returns ErrUnsupported.
func Offer(string) error { return ErrUnsupported }
