package azure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// credentialsFromEnv takes the first of the variables that the package names.
func (c *Config) credentialsFromEnv() {
	c.ConnectionString = os.Getenv("AZURE_STORAGE_CONNECTION_STRING")
	if c.ConnectionString != "" {
		return
	}
	c.Key = cmp.Or(os.Getenv("AZURE_STORAGE_KEY"), os.Getenv("LITESTREAM_AZURE_ACCOUNT_KEY"))
	if c.Key == "" {
		c.SASToken = cmp.Or(os.Getenv("AZURE_STORAGE_SAS_TOKEN"), os.Getenv("LITESTREAM_AZURE_SAS_TOKEN"))
	}
}

// applyConnectionString moves what the connection string says to the other
// fields. Of its text nothing may appear in an error.
func (c *Config) applyConnectionString() error {
	fields := map[string]string{}
	for part := range strings.SplitSeq(c.ConnectionString, ";") {
		if name, value, ok := strings.Cut(strings.TrimSpace(part), "="); ok {
			fields[strings.ToLower(name)] = value
		}
	}
	c.ConnectionString = ""
	account := fields["accountname"]
	if account != "" && c.Account != "" && account != c.Account {
		return fmt.Errorf("it is for account %s, the URL names %s: unset AZURE_STORAGE_CONNECTION_STRING, or change one of them", account, c.Account)
	}
	c.Account = cmp.Or(c.Account, account)
	if c.Endpoint == "" {
		c.Endpoint = fields["blobendpoint"]
	}
	if suffix := fields["endpointsuffix"]; c.Endpoint == "" && suffix != "" {
		c.Endpoint = cmp.Or(fields["defaultendpointsprotocol"], "https") + "://" + c.Account + ".blob." + suffix
	}
	if c.Key = fields["accountkey"]; c.Key == "" {
		c.SASToken = fields["sharedaccesssignature"]
	}
	if c.Key == "" && c.SASToken == "" {
		return errors.New("it has neither AccountKey nor SharedAccessSignature")
	}
	return nil
}

// tokens marks the errors of a credential, which have no type in common.
type tokens struct{ azcore.TokenCredential }

func (t tokens) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := t.TokenCredential.GetToken(ctx, opts)
	if err != nil {
		err = &tokenError{err}
	}
	return token, err
}

type tokenError struct{ err error }

func (e *tokenError) Error() string { return e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }
