package natsconn

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// DefaultURL is where a server is looked for when no flag says so.
const DefaultURL = "nats://127.0.0.1:4222"

// Flags is embedded in a command's flags. The zero value connects to
// [DefaultURL] with no credentials, trying once.
type Flags struct {
	Server      string        `name:"server" short:"s" env:"NATS_URL" placeholder:"URL" help:"NATS server URLs, comma separated."`
	Context     string        `name:"context" env:"NATS_CONTEXT" placeholder:"NAME" help:"Connect with a context of the nats command line tool (a name, or the absolute path of its file)."`
	Creds       string        `name:"creds" env:"NATS_CREDS" placeholder:"FILE" help:"User credentials file."`
	NKey        string        `name:"nkey" env:"NATS_NKEY" placeholder:"FILE" help:"User NKEY seed file."`
	User        string        `name:"user" env:"NATS_USER" placeholder:"NAME" help:"User name, or token when there is no password."`
	Password    string        `name:"password" env:"NATS_PASSWORD" placeholder:"PASSWORD" help:"Password."`
	Token       string        `name:"token" env:"NATS_TOKEN" placeholder:"TOKEN" help:"Token."`
	TLSCert     string        `name:"tlscert" env:"NATS_CERT" placeholder:"FILE" help:"TLS client certificate."`
	TLSKey      string        `name:"tlskey" env:"NATS_KEY" placeholder:"FILE" help:"TLS client key."`
	TLSCA       string        `name:"tlsca" env:"NATS_CA" placeholder:"FILE" help:"TLS certificate authority chain."`
	JSDomain    string        `name:"js-domain" placeholder:"DOMAIN" help:"JetStream domain."`
	InboxPrefix string        `name:"inbox-prefix" placeholder:"PREFIX" help:"Prefix of inbox subjects, for users who may not subscribe to _INBOX.>."`
	ConnectWait time.Duration `name:"connect-wait" default:"5s" help:"How long to try while nothing answers at the start."`
}

// Chosen reports whether a flag or variable says which server to use.
func (f Flags) Chosen() bool { return f.Server != "" || f.Context != "" }

// HasCredentials reports whether a flag or variable says who connects.
func (f Flags) HasCredentials() bool {
	return f.Creds != "" || f.NKey != "" || f.User != "" || f.Password != "" || f.Token != "" || f.TLSCert != ""
}

// validate reports every fault that needs no connection to be seen.
func (f Flags) validate() error {
	var errs []error
	for _, file := range []struct{ flag, path string }{
		{"--creds", f.Creds}, {"--nkey", f.NKey},
		{"--tlscert", f.TLSCert}, {"--tlskey", f.TLSKey}, {"--tlsca", f.TLSCA},
	} {
		if file.path == "" {
			continue
		}
		if _, err := os.Stat(file.path); err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", file.flag, err))
		}
	}
	if (f.TLSCert == "") != (f.TLSKey == "") {
		errs = append(errs, errors.New("--tlscert and --tlskey belong together"))
	}
	if f.Password != "" && f.User == "" {
		errs = append(errs, errors.New("--password needs --user"))
	}
	if strings.ContainsAny(f.InboxPrefix, " *>") || strings.HasSuffix(f.InboxPrefix, ".") {
		errs = append(errs, fmt.Errorf("--inbox-prefix %q is not a subject", f.InboxPrefix))
	}
	errs = append(errs, checkURLs(f.Server))
	return errors.Join(errs...)
}

func checkURLs(servers string) error {
	for s := range strings.SplitSeq(servers, ",") {
		s = strings.TrimSpace(s)
		if s == "" {
			continue
		}
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		if u, err := url.Parse(s); err != nil || u.Host == "" {
			return fmt.Errorf("--server %q is not a URL like nats://host:4222", Redact(s))
		}
	}
	return nil
}

// options turns the flags into nats.go's options; validate has passed.
func (f Flags) options() ([]nats.Option, error) {
	var opts []nats.Option
	if f.Creds != "" {
		opts = append(opts, nats.UserCredentials(f.Creds))
	}
	if f.NKey != "" {
		o, err := nats.NkeyOptionFromSeed(f.NKey)
		if err != nil {
			return nil, fmt.Errorf("read --nkey: %w", err)
		}
		opts = append(opts, o)
	}
	switch {
	case f.User != "" && f.Password == "":
		opts = append(opts, nats.Token(f.User))
	case f.User != "":
		opts = append(opts, nats.UserInfo(f.User, f.Password))
	}
	if f.Token != "" {
		opts = append(opts, nats.Token(f.Token))
	}
	if f.TLSCert != "" {
		opts = append(opts, nats.ClientCert(f.TLSCert, f.TLSKey))
	}
	if f.TLSCA != "" {
		opts = append(opts, nats.RootCAs(f.TLSCA))
	}
	if f.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(f.InboxPrefix))
	}
	return opts, nil
}

// url is what to connect to; empty leaves it to the context.
func (f Flags) url() string {
	if !f.Chosen() {
		return DefaultURL
	}
	return f.Server
}

// Redact hides passwords and tokens in comma separated server URLs.
func Redact(servers string) string {
	parts := strings.Split(servers, ",")
	for i, s := range parts {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil || u.User == nil {
			if _, host, ok := strings.Cut(s, "@"); ok {
				parts[i] = "xxxxx@" + host
			}
			continue
		}
		u.User = url.User("xxxxx")
		parts[i] = u.String()
	}
	return strings.Join(parts, ",")
}
