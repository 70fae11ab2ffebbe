//go:build !linux

package main

import "go.etcd.io/bbolt"

// releaseMapped does nothing here: other systems count mapped files apart from a process's memory, or have no call for it.
func releaseMapped(*bbolt.Tx) {}
