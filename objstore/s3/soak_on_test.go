//go:build soak

package s3

// suitePartSize: versitygw keeps the lengths of all parts in one attribute of a
// file, where ext4 has room for some hundreds.
const suitePartSize = DefaultPartSize
