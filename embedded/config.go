package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"
)

// Defaults of [Config].
const (
	DefaultMaxStore   = 10 << 30
	DefaultMaxPayload = 8 << 20
)

// Config says where and how the server runs. Only Dir has no default.
type Config struct {
	// Dir holds the JetStream store and the lock file; created when absent.
	Dir string
	// Listen is the TCP address for other processes, "127.0.0.1:4222" say;
	// port 0 or -1 picks a free one. Empty: this process only.
	Listen string
	// SyncInterval is how long an acknowledged message may stay unsynced.
	// 0 syncs before every acknowledgement.
	SyncInterval time.Duration
	// MaxStore bounds the bytes of all streams. 0 means DefaultMaxStore, or
	// what is used already plus three quarters of the free disk, if less.
	MaxStore int64
	// MaxPayload is the largest message in bytes, headers included.
	// 0 means DefaultMaxPayload.
	MaxPayload int32
	// Logger gets the server's warnings and errors, its notices at Debug.
	// nil means slog.Default().
	Logger *slog.Logger
}

// listenAddr is Config.Listen taken apart; host is empty for no listener.
type listenAddr struct {
	host string
	port int // -1: any free port
}

func (a listenAddr) String() string {
	return net.JoinHostPort(a.host, strconv.Itoa(max(a.port, 0)))
}

func (a listenAddr) loopback() bool {
	ip := net.ParseIP(a.host)
	return a.host == "localhost" || ip != nil && ip.IsLoopback()
}

func parseListen(s string) (listenAddr, error) {
	if s == "" {
		return listenAddr{}, nil
	}
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return listenAddr{}, fmt.Errorf("parse listen address %q: want HOST:PORT: %w", s, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil || port < -1 || port > 65535 {
		return listenAddr{}, fmt.Errorf("parse listen address %q: port %q is not in 0…65535", s, p)
	}
	if port == 0 {
		port = -1
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return listenAddr{host: host, port: port}, nil
}

// validate reports every fault of the configuration at once.
func (c Config) validate() (listenAddr, error) {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("check config: Dir is empty"))
	}
	addr, err := parseListen(c.Listen)
	errs = append(errs, err)
	if c.SyncInterval < 0 {
		errs = append(errs, fmt.Errorf("check config: SyncInterval %v is negative", c.SyncInterval))
	}
	if c.MaxStore < 0 {
		errs = append(errs, fmt.Errorf("check config: MaxStore %d is negative", c.MaxStore))
	}
	if c.MaxPayload < 0 || c.MaxPayload > 64<<20 {
		errs = append(errs, fmt.Errorf("check config: MaxPayload %d is not in 0…64 MB", c.MaxPayload))
	}
	return addr, errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.MaxPayload == 0 {
		c.MaxPayload = DefaultMaxPayload
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
