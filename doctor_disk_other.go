//go:build !linux && !darwin && !freebsd && !windows

package main

import "errors"

// freeSpace cannot tell here.
func freeSpace(string) (diskSpace, error) {
	return diskSpace{}, errors.New("this system does not tell")
}
