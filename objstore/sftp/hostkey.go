package sftp

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// hostKeys is what the server may prove to be.
type hostKeys struct {
	check ssh.HostKeyCallback
	// algorithms to ask for; nil: any. A server has several keys, and shows the
	// one that is asked for, not the one that is known.
	algorithms []string
}

func (cfg Config) hostKeys() (hostKeys, error) {
	if cfg.HostKey != "" {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(cfg.HostKey))
		if err != nil {
			return hostKeys{}, fmt.Errorf("host key %q: %w: want it as known_hosts has it, \"ssh-ed25519 AAAA...\"", cfg.HostKey, err)
		}
		return hostKeys{check: cfg.fixedKey(key), algorithms: algorithms(key.Type())}, nil
	}
	files, err := cfg.knownHosts()
	if err != nil {
		return hostKeys{}, err
	}
	check, err := knownhosts.New(files...)
	if err != nil {
		return hostKeys{}, fmt.Errorf("known hosts: %w", err)
	}
	k := hostKeys{check: func(host string, remote net.Addr, key ssh.PublicKey) error {
		return explainKey(check(host, remote, key), host, key, files)
	}}
	err = check(cfg.Addr, noAddr{}, noKey{})
	if unknown, ok := errors.AsType[*knownhosts.KeyError](err); ok {
		for _, known := range unknown.Want {
			k.algorithms = append(k.algorithms, algorithms(known.Key.Type())...)
		}
	}
	return k, nil
}

// knownHosts returns the files, of the default ones those that are there.
func (cfg Config) knownHosts() (files []string, err error) {
	for _, file := range cfg.KnownHosts {
		files = append(files, atHome(file))
	}
	if len(files) > 0 {
		return files, nil
	}
	for _, file := range []string{atHome("~/.ssh/known_hosts"), "/etc/ssh/ssh_known_hosts"} {
		if _, err := os.Stat(file); err == nil {
			files = append(files, file)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("known hosts: %w", err)
		}
	}
	if len(files) == 0 {
		return nil, errors.New("no known_hosts file to verify the server by: give one as known-hosts, or its key as host-key")
	}
	return files, nil
}

func (cfg Config) fixedKey(want ssh.PublicKey) ssh.HostKeyCallback {
	fixed := ssh.FixedHostKey(want)
	return func(host string, remote net.Addr, key ssh.PublicKey) error {
		if err := fixed(host, remote, key); err != nil {
			return finalError{fmt.Errorf("%s shows the host key %s, not that of the parameter host-key, %s: either it changed or someone stands between",
				host, describe(key), describe(want))}
		}
		return nil
	}
}

// finalError takes a person: trying again does not help.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func explainKey(err error, host string, key ssh.PublicKey, files []string) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*knownhosts.KeyError](err); ok {
		if len(known.Want) == 0 {
			return finalError{fmt.Errorf("%s shows the host key %s, which is not in %s: compare it with the server's own and add it",
				host, describe(key), strings.Join(files, ", "))}
		}
		return finalError{fmt.Errorf("%s shows the host key %s, not the one of %s line %d: either it changed or someone stands between",
			host, describe(key), known.Want[0].Filename, known.Want[0].Line)}
	}
	return finalError{fmt.Errorf("host key of %s: %w", host, err)}
}

func describe(key ssh.PublicKey) string { return key.Type() + " " + ssh.FingerprintSHA256(key) }

// algorithms are those that prove a key of the type.
func algorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// noAddr and noKey are what no server has: asking for them yields the keys that
// are known.
type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "0.0.0.0:0" }

type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }
