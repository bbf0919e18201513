// Package open turns the URL of an archive into one: it knows every backend,
// and which layout is used on it. Whoever needs one backend alone imports that
// package.
package open
