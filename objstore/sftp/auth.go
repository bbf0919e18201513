package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// identities reads the private keys: those that are named, which must be there,
// or those of ~/.ssh that serve.
func (cfg Config) identities() (keys []ssh.Signer, err error) {
	if len(cfg.Identities) == 0 {
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			if key, err := readIdentity(atHome("~/.ssh/" + name)); err == nil {
				keys = append(keys, key)
			}
		}
		return keys, nil
	}
	var faults []error
	for _, file := range cfg.Identities {
		key, err := readIdentity(atHome(file))
		keys, faults = append(keys, key), append(faults, err)
	}
	return keys, errors.Join(faults...)
}

func readIdentity(file string) (ssh.Signer, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	key, err := ssh.ParsePrivateKey(b)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return nil, fmt.Errorf("identity %s has a passphrase: add it to the ssh agent and leave the parameter out, or use a key without", file)
	}
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", file, err)
	}
	return key, nil
}

// atHome replaces a leading ~/.
func atHome(file string) string {
	rest, ok := strings.CutPrefix(file, "~/")
	if home, err := os.UserHomeDir(); ok && err == nil {
		return filepath.Join(home, rest)
	}
	return file
}

// login returns the ways to log in. Call done after the handshake.
func (cfg Config) login(ctx context.Context) (ways []ssh.AuthMethod, done func(), err error) {
	keys, err := cfg.identities()
	if err != nil {
		return nil, nil, err
	}
	done = func() {}
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" && len(cfg.Identities) == 0 {
		// An agent that is not there is as good as one without keys.
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			done = func() { stop(); _ = conn.Close() }
			if held, err := agent.NewClient(conn).Signers(); err == nil {
				keys = slices.Concat(held, keys)
			}
		}
	}
	if len(keys) > 0 {
		ways = append(ways, ssh.PublicKeys(keys...))
	}
	if cfg.Password != "" {
		ways = append(ways, ssh.Password(cfg.Password), ssh.KeyboardInteractive(cfg.answer))
	}
	if len(ways) == 0 {
		done()
		return nil, nil, fmt.Errorf("%w: no way to log in: give a key file as identity, load one into the ssh agent, or set %s", fs.ErrPermission, envPassword)
	}
	return ways, done, nil
}

// answer gives the password to a server that asks for it alone.
func (cfg Config) answer(_, _ string, questions []string, echos []bool) ([]string, error) {
	switch {
	case len(questions) == 0:
		return nil, nil
	case len(questions) == 1 && !echos[0]:
		return []string{cfg.Password}, nil
	}
	return nil, errors.New("the server asks for more than a password")
}
