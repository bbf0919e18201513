package gcs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"

	"github.com/ltxstream/ltxstream/objstore"
)

// explain turns an error of the SDK into one of the contract's: the cause of an
// ended context before everything else.
func (s *Store) explain(ctx context.Context, verb, key string, err error) error {
	if isMissing(err) && ctx.Err() == nil {
		err = s.explainMissing(ctx, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", verb, key, context.Cause(ctx))
	}
	return fmt.Errorf("%s %s: %w", verb, key, classify(err))
}

func isMissing(err error) bool {
	answer, ok := errors.AsType[*googleapi.Error](err)
	return ok && answer.Code == http.StatusNotFound ||
		errors.Is(err, storage.ErrObjectNotExist) || errors.Is(err, storage.ErrBucketNotExist)
}

// explainMissing tells what an answer 404 says is missing. Google's text does
// so; where it does not (an emulator, another text some day) the bucket is
// asked, for a missing one must never look like an empty one.
func (s *Store) explainMissing(ctx context.Context, err error) error {
	if saysObject(err) {
		return fs.ErrNotExist
	}
	if !errors.Is(err, storage.ErrBucketNotExist) {
		if err = s.askBucket(ctx); err == nil {
			return fs.ErrNotExist
		}
	}
	if errors.Is(err, storage.ErrBucketNotExist) {
		return fmt.Errorf("bucket %q does not exist: create it, or correct the name", s.cfg.Bucket)
	}
	return err
}

func saysObject(err error) bool {
	answer, ok := errors.AsType[*googleapi.Error](err)
	return ok && strings.Contains(answer.Message+answer.Body, "No such object")
}

// askBucket costs one request, and needs no permission that List does not.
func (s *Store) askBucket(ctx context.Context) error {
	query := &storage.Query{Prefix: s.prefix, Projection: storage.ProjectionNoACL}
	if err := query.SetAttrSelection([]string{"Name"}); err != nil {
		return err
	}
	objects := s.bucket.Objects(ctx, query)
	objects.PageInfo().MaxSize = 1
	if _, err := objects.Next(); err != nil && !errors.Is(err, iterator.Done) {
		return err
	}
	return nil
}

// classify decides what an error means for a caller; a 404 was explained
// before.
func classify(err error) error {
	if answer, ok := errors.AsType[*googleapi.Error](err); ok {
		return classifyAnswer(answer)
	}
	if token, ok := errors.AsType[*auth.Error](err); ok && token.Response != nil {
		if isBusy(token.Response.StatusCode) {
			return objstore.Transient(err)
		}
		return fmt.Errorf("%w: the Google credentials were refused: %w", fs.ErrPermission, err)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return err
	}
	_, network := errors.AsType[net.Error](err)
	_, cut := errors.AsType[*json.SyntaxError](err) // an answer that ends early
	if network || cut || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded) {
		return objstore.Transient(err)
	}
	return err
}

func classifyAnswer(answer *googleapi.Error) error {
	switch code := answer.Code; {
	case code == http.StatusPreconditionFailed: // only Put with IfAbsent has one
		return fs.ErrExist
	case isBusy(code), code == http.StatusForbidden && isRateLimit(answer):
		return objstore.Transient(answer)
	case code == http.StatusGone: // of a resumable upload: begin another
		return objstore.Transient(answer)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%w: %w", fs.ErrPermission, answer)
	}
	return answer
}

func isBusy(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

func isRateLimit(answer *googleapi.Error) bool {
	return slices.ContainsFunc(answer.Errors, func(e googleapi.ErrorItem) bool {
		return strings.Contains(strings.ToLower(e.Reason), "ratelimitexceeded")
	})
}
