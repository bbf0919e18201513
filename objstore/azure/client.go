package azure

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// newClient returns a client of the container. It makes one try of each
// request; what is tried more often says so where it is made.
func (c Config) newClient(transport http.RoundTripper) (*container.Client, error) {
	url := c.Endpoint + "/" + c.Container
	opts := azcore.ClientOptions{
		Transport: &http.Client{Transport: transport},
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{ApplicationID: "ltxstream"},
	}
	switch {
	case c.Key != "":
		cred, err := container.NewSharedKeyCredential(c.Account, c.Key)
		if err != nil {
			return nil, errors.New("account key: not base64")
		}
		return container.NewClientWithSharedKeyCredential(url, cred, &container.ClientOptions{ClientOptions: opts})
	case c.SASToken != "":
		return container.NewClientWithNoCredential(url+"?"+c.SASToken, &container.ClientOptions{ClientOptions: opts})
	}
	cred := c.Credential
	if cred == nil {
		var err error
		cred, err = azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: azcore.ClientOptions{Transport: opts.Transport}})
		if err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
	}
	return container.NewClient(url, tokens{cred}, &container.ClientOptions{ClientOptions: opts})
}

// newTransport is the default one with room for parallel requests to one host.
// The service itself gives up on a request before responseWait.
func newTransport() *http.Transport {
	const responseWait = 90 * time.Second
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		ResponseHeaderTimeout: responseWait,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   MaxConcurrency,
		DisableCompression:    true, // a body arrives as it was put
	}
}
