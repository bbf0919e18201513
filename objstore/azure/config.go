package azure

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/ltxstream/ltxstream/objstore"
)

// Defaults and bounds of [Config].
const (
	DefaultBlockSize   = 8 << 20
	MinBlockSize       = 64 << 10
	MaxBlockSize       = 256 << 20
	DefaultConcurrency = 4
	MaxConcurrency     = 64
)

// Config says where the objects are and how to get there. At most one of Key,
// SASToken, ConnectionString and Credential; without any the environment
// decides (see the package).
type Config struct {
	Account   string // of Azure Storage; default from the connection string, else AZURE_STORAGE_ACCOUNT
	Container string // which exists
	Prefix    string // before every key, with a "/" between; "": none
	Endpoint  string // of the account's blob service; default https://ACCOUNT.blob.core.windows.net

	Key              string // of the account, base64
	SASToken         string // with or without its "?"
	ConnectionString string
	Credential       azcore.TokenCredential // over https only

	// An object of less than BlockSize bytes is put in one request, a larger one
	// in blocks of that size, Concurrency of them at once. A Put holds at most
	// BlockSize times Concurrency bytes: by default 8 MiB times 4.
	BlockSize   int64
	Concurrency int

	// Transport carries the requests, those for tokens included; nil: one of
	// the store's own, with the proxy of the environment.
	Transport http.RoundTripper
}

// ParseURL reads a Config from a URL of the form that the package describes.
func ParseURL(u *url.URL) (Config, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if u.Scheme != "abs" {
		fault("scheme %q: want abs", u.Scheme)
	}
	if _, set := u.User.Password(); set {
		fault("a password in the URL: give the account key as AZURE_STORAGE_KEY")
	}
	if u.Host == "" {
		fault("no container: want abs://ACCOUNT@CONTAINER/PREFIX")
	}
	if u.Fragment != "" || u.Opaque != "" {
		fault("want abs://ACCOUNT@CONTAINER/PREFIX")
	}
	cfg := Config{Account: u.User.Username(), Container: u.Host, Prefix: strings.Trim(u.Path, "/")}
	if err := checkPrefix(cfg.Prefix); err != nil {
		fault("%w", err)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		fault("parameters: %w", err)
	}
	for name, values := range query {
		var err error
		switch value := values[len(values)-1]; name {
		case "endpoint":
			cfg.Endpoint = value
		case "block-size":
			cfg.BlockSize, err = parseSize(value)
		case "concurrency":
			cfg.Concurrency, err = parsePositive(value)
		default:
			err = errors.New("unknown; there are endpoint, block-size and concurrency")
		}
		if err != nil {
			fault("parameter %s: %w", name, err)
		}
	}
	if len(faults) > 0 {
		return Config{}, fmt.Errorf("azure URL: %w", errors.Join(faults...))
	}
	return cfg, nil
}

func parsePositive(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q: want a number above 0", s)
	}
	return n, nil
}

func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	for suffix, by := range map[string]int{"KiB": 10, "MiB": 20} {
		if d, ok := strings.CutSuffix(s, suffix); ok {
			digits, shift = d, by
		}
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q: want a number of bytes, or one with KiB or MiB", s)
	}
	return n << shift, nil
}

// complete returns c with its defaults, its connection string taken apart and
// the environment's credentials where it has none; or all that is wrong with it.
func (c Config) complete() (Config, error) {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	given := 0
	for _, set := range []bool{c.Key != "", c.SASToken != "", c.ConnectionString != "", c.Credential != nil} {
		if set {
			given++
		}
	}
	check(given <= 1, "more than one of key, SAS token, connection string and credential")
	if given == 0 {
		c.credentialsFromEnv()
	}
	if c.ConnectionString != "" {
		if err := c.applyConnectionString(); err != nil {
			faults = append(faults, fmt.Errorf("connection string: %w", err))
		}
	}
	c.Account = cmp.Or(c.Account, os.Getenv("AZURE_STORAGE_ACCOUNT"))
	check(c.Account != "", "no account: want abs://ACCOUNT@CONTAINER/PREFIX, or set AZURE_STORAGE_ACCOUNT")
	check(c.Account == "" || isName(c.Account, 24, ""), "account %q: want 3 to 24 lower-case letters and digits", c.Account)
	check(c.Container != "", "no container: want abs://ACCOUNT@CONTAINER/PREFIX")
	check(c.Container == "" || isName(c.Container, 63, "-"), "container %q: want 3 to 63 lower-case letters, digits and hyphens", c.Container)
	if err := checkPrefix(c.Prefix); err != nil {
		faults = append(faults, err)
	}
	c.Endpoint = strings.TrimRight(cmp.Or(c.Endpoint, "https://"+c.Account+".blob.core.windows.net"), "/")
	if err := checkEndpoint(c.Endpoint, c.Key == "" && c.SASToken == ""); err != nil {
		faults = append(faults, err)
	}
	c.SASToken = strings.TrimPrefix(c.SASToken, "?")
	sas, err := url.ParseQuery(c.SASToken)
	check(c.SASToken == "" || err == nil && sas.Has("sig"), "SAS token: has no signature (sig=…)")
	c.BlockSize, c.Concurrency = cmp.Or(c.BlockSize, DefaultBlockSize), cmp.Or(c.Concurrency, DefaultConcurrency)
	check(c.BlockSize >= MinBlockSize && c.BlockSize <= MaxBlockSize, "block size %d: want %d to %d bytes", c.BlockSize, MinBlockSize, MaxBlockSize)
	check(c.Concurrency >= 1 && c.Concurrency <= MaxConcurrency, "concurrency %d: want 1 to %d", c.Concurrency, MaxConcurrency)
	return c, errors.Join(faults...)
}

// maxPrefix leaves room for the longest key in the 1024 characters of a name.
const maxPrefix = 300

func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if len(prefix) > maxPrefix {
		return fmt.Errorf("prefix of %d characters: want at most %d", len(prefix), maxPrefix)
	}
	if err := objstore.CheckKey(prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	return nil
}

func isName(s string, longest int, also string) bool {
	return len(s) >= 3 && len(s) <= longest && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(also, r)
	})
}

func checkEndpoint(endpoint string, tokens bool) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("endpoint: want the URL of a blob service, https://…")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("endpoint at %s: want neither credentials nor parameters", u.Host)
	case tokens && u.Scheme == "http":
		return fmt.Errorf("endpoint at %s: over http there must be an account key or a SAS token (AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN)", u.Host)
	}
	return nil
}
