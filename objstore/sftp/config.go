package sftp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/user"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/internal/tree"
)

// Defaults of [Config].
const (
	DefaultConnectTimeout = 15 * time.Second
	DefaultKeepAlive      = 10 * time.Second
)

// envPassword names the variable with the password.
const envPassword = "LTX_SFTP_PASSWORD"

// Config of a store.
type Config struct {
	Addr string // host or host:port; required; port 22 by default
	User string // default: the name of the user who runs this
	// Path of the directory: absolute, or relative to the user's home. Required.
	Path   string
	Create bool // make it, and those above it, when it is missing

	HostKey    string   // as in a line of known_hosts: type and base64
	KnownHosts []string // files; unused with HostKey; default see the package
	Identities []string // files of private keys; default see the package
	Password   string   // default $LTX_SFTP_PASSWORD

	ConnectTimeout time.Duration // of TCP, handshake and login together
	KeepAlive      time.Duration // silence before a question; thrice that ends the connection

	step func(string) // of tests
}

// ParseURL reads the form that the package describes.
func ParseURL(u *url.URL) (Config, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if u.Scheme != "sftp" {
		fault("scheme %q: want sftp", u.Scheme)
	}
	if u.Hostname() == "" {
		fault("no host: want sftp://user@host/path")
	}
	if _, has := u.User.Password(); has {
		fault("a password in the URL ends in logs and process lists: set %s instead, or use a key", envPassword)
	}
	cfg := Config{Addr: u.Host, User: u.User.Username(), Path: u.Path}
	if home, ok := strings.CutPrefix(u.Path, "/~/"); ok || u.Path == "/~" {
		cfg.Path = path.Clean(home)
	}
	if strings.Trim(u.Path, "/") == "" {
		fault("no path: want sftp://user@host/path, or /~/path below the home")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		fault("%w", err)
	}
	for name, values := range query {
		switch value := values[len(values)-1]; name {
		case "identity":
			cfg.Identities = values
		case "known-hosts":
			cfg.KnownHosts = values
		case "host-key":
			cfg.HostKey = unplus(value)
		case "create":
			if cfg.Create, err = strconv.ParseBool(value); err != nil {
				fault("parameter create=%s: want true or false", value)
			}
		default:
			fault("unknown parameter %q: there are identity, known-hosts, host-key and create", name)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return Config{}, fmt.Errorf("storage URL %s: %w", u.Redacted(), err)
	}
	return cfg, nil
}

// unplus gives a key its plus signs back, which a query has as spaces: all but
// the first, and what stands behind the key in known_hosts has no place here.
func unplus(key string) string {
	kind, key, _ := strings.Cut(key, " ")
	return kind + " " + strings.ReplaceAll(key, " ", "+")
}

// Store is an [objstore.Store] on an SFTP server.
type Store struct {
	*tree.Store
	pool *pool
}

var _ objstore.Store = (*Store)(nil)

// New checks the configuration, with the files of keys it names. It does not
// connect: the first call does.
func New(_ context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("sftp store: %w", err)
	}
	p := newPool(cfg)
	where := url.URL{Scheme: "sftp", User: url.User(cfg.User), Host: strings.TrimSuffix(cfg.Addr, ":22"), Path: cfg.Path}
	if !path.IsAbs(cfg.Path) {
		where.Path = path.Join("/~", cfg.Path)
	}
	return &Store{pool: p, Store: tree.New(tree.Config{
		FS: files{p}, Root: path.Clean(cfg.Path), URL: where.String(),
		Create: cfg.Create, Coarse: time.Second, Step: cfg.step,
	})}, nil
}

// Close ends the connection and what is under way on it.
func (s *Store) Close() error {
	s.pool.close()
	return nil
}

func (cfg Config) withDefaults() (Config, error) {
	var faults []error
	if cfg.Addr == "" {
		faults = append(faults, errors.New("no host"))
	} else if _, _, err := net.SplitHostPort(cfg.Addr); err != nil {
		cfg.Addr = net.JoinHostPort(strings.Trim(cfg.Addr, "[]"), "22")
	}
	if cfg.Path == "" {
		faults = append(faults, errors.New("no path"))
	}
	if cfg.User == "" {
		me, err := user.Current()
		if err != nil {
			faults = append(faults, fmt.Errorf("no user given: %w", err))
		} else {
			cfg.User = me.Username
		}
	}
	cfg.Password = cmp.Or(cfg.Password, os.Getenv(envPassword))
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, DefaultConnectTimeout)
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, DefaultKeepAlive)
	_, err := cfg.identities()
	faults = append(faults, err)
	_, err = cfg.hostKeys()
	return cfg, errors.Join(append(faults, err)...)
}
