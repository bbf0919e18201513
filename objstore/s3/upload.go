package s3

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// abortPause is how long a part that was sent and not answered gets to become
// visible before its upload is aborted again.
const abortPause = 250 * time.Millisecond

// upload is the client of one Put. It looks closer at the answers than the
// transfer manager does.
type upload struct {
	*s3.Client
	failed     error       // of CompleteMultipartUpload
	unanswered atomic.Bool // a part was sent that the server may still be storing
}

func (u *upload) CreateMultipartUpload(ctx context.Context, in *s3.CreateMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CreateMultipartUploadOutput, error) {
	out, err := u.Client.CreateMultipartUpload(ctx, in, opts...)
	if err == nil && aws.ToString(out.UploadId) == "" { // the transfer manager would panic
		err = errEmptyAnswer
	}
	return out, err
}

// UploadPart notes a part that the server has not answered: the call was
// cancelled, or the connection broke.
func (u *upload) UploadPart(ctx context.Context, in *s3.UploadPartInput, opts ...func(*s3.Options)) (*s3.UploadPartOutput, error) {
	out, err := u.Client.UploadPart(ctx, in, opts...)
	if err != nil && statusOf(err) == 0 {
		u.unanswered.Store(true)
	}
	return out, err
}

// AbortMultipartUpload is sent a second time, abortPause later, where a part may
// have been under way when the first arrived: such a part may still be stored,
// and its upload with it (Amazon S3 API Reference, AbortMultipartUpload).
func (u *upload) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput, opts ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error) {
	out, err := u.Client.AbortMultipartUpload(ctx, in, opts...)
	if !u.unanswered.Load() {
		return out, err
	}
	select {
	case <-ctx.Done():
		return out, err
	case <-time.After(abortPause):
	}
	again, err := u.Client.AbortMultipartUpload(ctx, in, opts...)
	if codeOf(err) == "NoSuchUpload" {
		return out, nil
	}
	return again, err
}

// CompleteMultipartUpload keeps its error from the transfer manager, which
// would write it to the standard logger: that somebody else was first
// (PutOptions.IfAbsent) is no news. An empty answer after "200 OK" is how S3
// breaks off when it could not do it.
func (u *upload) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CompleteMultipartUploadOutput, error) {
	out, err := u.Client.CompleteMultipartUpload(ctx, in, opts...)
	if err == nil && aws.ToString(out.ETag) == "" {
		err = errEmptyAnswer
	}
	if err == nil {
		return out, nil
	}
	u.failed = err
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, _ = u.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId})
	return &s3.CompleteMultipartUploadOutput{}, nil
}
