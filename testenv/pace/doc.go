// Package pace owns waiting in test programs: precise short sleeps and open-loop rates.
//
// The Go runtime rounds a timer below one millisecond up to a millisecond when nothing else runs in the process;
// a latency probe or a writer at 1,000 transactions a second needs better. Sleep here asks the kernel.
//
// It is for load generators and probes. It is not a way to make a test wait for something: wait on a condition instead.
package pace
