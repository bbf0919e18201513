package azure

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/ltxstream/ltxstream/objstore"
)

// explain returns err, of one request under ctx, as the contract of
// [objstore.Store] wants it; nil stays nil.
func (s *Store) explain(ctx context.Context, err error, verb, key string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", verb, key, s.reason(ctx, err))
}

// reason is explain without the name of the object.
func (s *Store) reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.classify(err)
}

func (s *Store) classify(err error) error {
	if e, ok := errors.AsType[*tokenError](err); ok {
		return classifyToken(e)
	}
	if e, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return s.classifyAnswer(e)
	}
	network := isNetwork(err)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL: it may hold a SAS token
	}
	if network {
		return objstore.Transient(err)
	}
	return err
}

// isNetwork reports whether there was no whole answer; a bad certificate does
// not pass by itself and is not meant.
func isNetwork(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	_, network := errors.AsType[net.Error](err) // every *url.Error is one
	_, broken := errors.AsType[*brokenBody](err)
	cut := strings.HasPrefix(err.Error(), "unmarshalling type") // a listing that breaks off; azcore keeps the text alone
	return network || broken || cut || errors.Is(err, io.ErrUnexpectedEOF)
}

// brokenBody marks an error of reading a body.
type brokenBody struct{ err error }

func (e *brokenBody) Error() string { return e.err.Error() }
func (e *brokenBody) Unwrap() error { return e.err }

// classifyToken: without a token there is no permission, unless the one who
// gives them did not answer.
func classifyToken(err *tokenError) error {
	if e, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok && (e.RawResponse == nil || temporary(e.RawResponse.StatusCode)) {
		return objstore.Transient(err)
	}
	if isNetwork(err) {
		return objstore.Transient(err)
	}
	return fmt.Errorf("%w: no Azure token (set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or give this machine an identity): %w", fs.ErrPermission, err)
}

func temporary(status int) bool {
	return status >= 500 && status != http.StatusNotImplemented || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// classifyAnswer goes by the service's code where a status has several meanings.
func (s *Store) classifyAnswer(e *azcore.ResponseError) error {
	a := answer{e}
	switch {
	case bloberror.HasCode(e, bloberror.BlobNotFound):
		return fmt.Errorf("%w: %w", fs.ErrNotExist, a)
	case bloberror.HasCode(e, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet):
		return fmt.Errorf("%w: %w", fs.ErrExist, a)
	case bloberror.HasCode(e, bloberror.ContainerNotFound):
		return fmt.Errorf("container %s of account %s is missing, create it: %w", s.cfg.Container, s.cfg.Account, a)
	case bloberror.HasCode(e, bloberror.AuthenticationFailed):
		return fmt.Errorf("%w: the key or token of account %s is wrong or expired, or the clock of this machine is: %w", fs.ErrPermission, s.cfg.Account, a)
	case e.StatusCode == http.StatusForbidden || e.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%w: the credentials must be allowed to read, create, write, delete and list blobs of container %s: %w", fs.ErrPermission, s.cfg.Container, a)
	case bloberror.HasCode(e, bloberror.InvalidBlockList): // another Put of the key took our blocks away
		return objstore.Transient(a)
	case temporary(e.StatusCode):
		return objstore.Transient(a)
	}
	return a
}

// answer is an error of the service, on one line.
type answer struct{ err *azcore.ResponseError }

func (a answer) Unwrap() error { return a.err }

func (a answer) Error() string {
	text := fmt.Sprintf("%d %s", a.err.StatusCode, a.err.ErrorCode)
	if a.err.RawResponse == nil {
		return text
	}
	var doc struct{ Message string }
	if raw, err := runtime.Payload(a.err.RawResponse); err == nil && xml.Unmarshal(raw, &doc) == nil && doc.Message != "" {
		first, _, _ := strings.Cut(doc.Message, "\n")
		text += ": " + strings.TrimSpace(first)
	}
	if id := a.err.RawResponse.Header.Get("x-ms-request-id"); id != "" {
		text += " (request " + id + ")"
	}
	return text
}
