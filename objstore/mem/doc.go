// Package mem owns objects in the memory of this process: a store for tests of
// what is built on objstore, and for trying things out. Nothing is durable.
package mem
