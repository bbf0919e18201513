// Package steps owns processes that stop before a chosen step: a call by which a program changes files, or answers somebody. A test
// can kill one right there, although the program knows nothing of it.
//
// The process makes itself watched, by a seccomp filter that has the kernel ask before each such call. Whoever watches lets
// it go on, or leaves it where it is.
//
// Invariants:
//   - A process that is stopped has done all steps before that one, and does not do it, nor does the thread go on.
//   - Nothing but the time of a step changes for a process that is not stopped.
//
// Linux 5.19 and newer only. It ends no process, and knows no SQLite and no NATS.
package steps
