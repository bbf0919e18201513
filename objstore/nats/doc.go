// Package natsobj owns the backend on a NATS JetStream object store.
package natsobj
