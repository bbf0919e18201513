package wal

// Open-file-description locks of XNU (bsd/sys/fcntl.h); not in x/sys/unix.
const (
	ofdSetLock = 90
	ofdGetLock = 92
)
