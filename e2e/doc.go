// Package e2e owns the tests that join all roles: an application, a publisher,
// NATS and replicas, compared at the end of each. It holds no code of the
// product.
package e2e
