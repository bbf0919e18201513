//go:build !soak

package s3

const suitePartSize = minPartSize
