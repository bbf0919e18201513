// Package e2e owns the tests that join all roles: an application, a publisher,
// NATS and replicas, compared at the end of each. It holds no code of the
// product.
//
// Each test is named for the trap it sets, prints its seeds, and ends with
// testenv.Compare: same schema and rows, same bytes on every page, same rolling
// checksum, integrity ok. The long forms are under the build tag soak.
package e2e
