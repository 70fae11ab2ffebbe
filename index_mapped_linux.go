package main

import (
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// releaseMapped takes the file's pages out of the process's memory. They stay in the system's cache, and come back when they
// are read. The transaction keeps the mapping where it is.
func releaseMapped(tx *bbolt.Tx) {
	// An error leaves things as they are.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, tx.DB().Info().Data, uintptr(tx.Size()), unix.MADV_DONTNEED)
}
