package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/ltxstream/ltxstream/objstore"
)

// errEmptyAnswer is a "200 OK" without what S3 always says.
var errEmptyAnswer = objstore.Transient(errors.New("the server's answer is incomplete"))

// explain is the error of a call as objstore.Store promises it; what names the
// call and its object. Once ctx has ended that is the reason of everything.
func explain(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w", what, classify(err))
}

// classify decides what callers may make of an error of the SDK. S3's code
// says more than the HTTP status; an answer to HEAD has the status only.
func classify(err error) error {
	code, status := codeOf(err), statusOf(err)
	switch {
	case errors.Is(err, objstore.ErrTransient):
		return err
	case code == "NoSuchKey": // never a bare 404: the bucket may be missing, or a proxy lost
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case code == "NoSuchBucket":
		return fmt.Errorf("the bucket does not exist, create it or mend its name: %w", err)
	case code == "PreconditionFailed" || status == http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", fs.ErrExist, err)
	case wrongRegion[code] || status >= 300 && status < 400 && status != http.StatusTemporaryRedirect:
		return elsewhere(err)
	case transient[code] || isTransient(status):
		return objstore.Transient(err)
	case denied[code] || status == http.StatusForbidden || status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", fs.ErrPermission, err)
	case code != "":
		return err
	}
	return classifyUnanswered(err)
}

// classifyUnanswered is classify where S3 has said nothing that could be read:
// an answer cut short, a proxy's page, none at all.
func classifyUnanswered(err error) error {
	if c, ok := errors.AsType[*credentialsError](err); ok {
		return c.classify(err)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("the server's certificate is not trusted: %w", err)
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Errorf("the endpoint wants http:// instead of https://: %w", err)
	}
	_, unsent := errors.AsType[*smithyhttp.RequestSendError](err)
	_, unread := errors.AsType[*smithy.DeserializationError](err)
	if unsent || unread || statusOf(err) != 0 {
		return objstore.Transient(err)
	}
	return err
}

var (
	// transient codes, where the status does not say so.
	transient = codes("InternalError", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException",
		"RequestLimitExceeded", "BandwidthLimitExceeded", "RequestTimeout", "RequestTimeoutException", "TemporaryRedirect",
		// Another conditional write, or another operation, is under way. Whether
		// it will succeed is not known, so this is not fs.ErrExist: the next try
		// will see.
		"ConditionalRequestConflict", "OperationAborted",
		// Damaged or cut on the way to S3.
		"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch",
		// Somebody has cleaned up the upload: a new Put starts a new one.
		"NoSuchUpload",
		// The SDK learns the difference of the clocks from this answer.
		"RequestTimeTooSkewed")

	// denied codes, where the status is not 403 or the answer is one of many.
	denied = codes("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
		"TokenRefreshRequired", "AccountProblem", "AllAccessDisabled", "NotSignedUp", "InvalidSecurity", "AuthFailure")

	wrongRegion = codes("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
)

func codes(names ...string) map[string]bool {
	set := map[string]bool{}
	for _, name := range names {
		set[name] = true
	}
	return set
}

func isTransient(status int) bool {
	switch status {
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusTemporaryRedirect:
		return true
	}
	return status >= 500
}

// codeOf is S3's code, "" where there is none.
func codeOf(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// statusOf is the HTTP status of the answer, 0 where there was none.
func statusOf(err error) int {
	if e, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return e.HTTPStatusCode()
	}
	return 0
}

// elsewhere says where S3 says the bucket is, or a server that it is itself.
func elsewhere(err error) error {
	var header http.Header
	if e, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && e.Response != nil {
		header = e.Response.Header
	}
	if region := header.Get("X-Amz-Bucket-Region"); region != "" {
		return fmt.Errorf("the bucket is in another region, set region=%s: %w", region, err)
	}
	if place := header.Get("Location"); place != "" {
		return fmt.Errorf("the server redirects to %s, mend the endpoint: %w", place, err)
	}
	return fmt.Errorf("the bucket is in another region, set region=: %w", err)
}

// answered is an error of one object in the answer to a request for many.
func answered(code, message *string) error {
	return &smithy.GenericAPIError{Code: aws.ToString(code), Message: aws.ToString(message)}
}

// credentialsError is that of a provider of credentials: no answer of S3.
type credentialsError struct {
	err  error
	were bool // there, earlier
}

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// classify: credentials that were there come back; those that never were are
// somebody's to give, unless the service that has them is out of reach. (On a
// machine outside of EC2 its metadata service always is.)
func (e *credentialsError) classify(err error) error {
	op, asked := errors.AsType[*smithy.OperationError](e.err)
	_, unsent := errors.AsType[*smithyhttp.RequestSendError](e.err)
	if e.were || asked && unsent && op.Service() != "ec2imds" {
		return objstore.Transient(err)
	}
	return fmt.Errorf("%w: no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an AWS profile or role: %w", fs.ErrPermission, err)
}

// provider marks the errors of another one.
type provider struct {
	aws.CredentialsProvider
	were atomic.Bool
}

// watched returns p with its errors marked. Anonymous access has none.
func watched(p aws.CredentialsProvider) aws.CredentialsProvider {
	if p == nil || aws.IsCredentialsProvider(p, aws.AnonymousCredentials{}) {
		return p
	}
	return aws.NewCredentialsCache(&provider{CredentialsProvider: p})
}

func (p *provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := p.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return c, &credentialsError{err: err, were: p.were.Load()}
	}
	p.were.Store(true)
	return c, nil
}
