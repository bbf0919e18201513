// Package azure keeps objects as block blobs in one container of Azure Blob
// Storage.
//
// Invariants: a blob is committed in one request (Put Blob, or Put Block List
// after its blocks), so what was not finished is never seen; every request goes
// to the container and prefix of the [Config] and to nothing else; no error and
// no String tells a key or a token.
//
// # URL
//
//	abs://ACCOUNT@CONTAINER/PREFIX?endpoint=URL&block-size=8MiB&concurrency=4
//
// The account may be left out where AZURE_STORAGE_ACCOUNT or a connection
// string names it. endpoint is the account's blob service, for other clouds,
// private links and emulators (http://127.0.0.1:10000/devstoreaccount1);
// default https://ACCOUNT.blob.core.windows.net. block-size (bytes, or with
// KiB or MiB) and concurrency are [Config.BlockSize] and [Config.Concurrency].
//
// # Credentials
//
// Those of the Config, else the first of these environment variables:
//
//   - AZURE_STORAGE_CONNECTION_STRING,
//   - AZURE_STORAGE_KEY, LITESTREAM_AZURE_ACCOUNT_KEY: the account key,
//   - AZURE_STORAGE_SAS_TOKEN, LITESTREAM_AZURE_SAS_TOKEN,
//
// else what azidentity's DefaultAzureCredential finds: AZURE_CLIENT_ID and its
// companions, workload identity, managed identity, the sign-in of az and azd.
// It looks when the first request is made.
//
// They need the role Storage Blob Data Contributor on the container, or a SAS
// of the container with the permissions rcwdl (read, create, write, delete,
// list). The container must exist; none is created.
//
// # Layout
//
// Put's timestamp is the metadata litestreamtimestamp (RFC 3339, milliseconds,
// UTC; any RFC 3339 is read, anything else counts as none), a name of
// PutOptions.Meta is the metadata ltxstream followed by that name. Names of
// metadata change their case on the way and are compared without it.
//
// # Limits
//
//   - A blob has at most 50,000 blocks: the largest object is 50,000 times the
//     block size, 390 GiB by default.
//   - The service offers no way to discard the blocks of an upload that broke
//     off. They are invisible, cost their storage for up to a week, and go
//     earlier when the key is written. Two streamed Puts to one key disturb each
//     other for the same reason: the later one fails as [objstore.ErrTransient].
//   - An account with a hierarchical namespace lists in another order than by
//     bytes; a listing that shows it fails rather than mislead. Such an account
//     is not supported.
//   - A blob that has snapshots, a lease or an immutability policy cannot be
//     deleted; the error says which.
//   - Listings start behind a key by the parameter startFrom, which services
//     and emulators older than version 2026-02-06 of the API do not know.
package azure
