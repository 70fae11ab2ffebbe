//go:build !linux

package main

import "context"

// watchNetworks tells now and then that interfaces and addresses may have changed, until ctx ends.
func watchNetworks(ctx context.Context, changed func()) { watchByClock(ctx, changed) }
