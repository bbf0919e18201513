// Package atomicfile owns small files that are replaced as a whole.
//
// Invariant: under its name there is the old content or the new one, never a part.
// While it is written the new one has the name with Suffix, which a kill may leave;
// the next write takes it. One process at a time writes a file.
package atomicfile
