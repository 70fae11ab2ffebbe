//go:build !linux

package main

// portHolder names the program that listens on a TCP port. Here nobody is asked.
func portHolder(int) (program, unit string) { return "", "" }
