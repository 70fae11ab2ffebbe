package main

import (
	"context"
	"time"
)

// mdnsLookEvery is how often the networks are looked at where the system tells of no changes.
const mdnsLookEvery = time.Minute

// watchByClock tells of a change from time to time, until ctx ends.
func watchByClock(ctx context.Context, changed func()) {
	ticker := time.NewTicker(mdnsLookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			changed()
		}
	}
}
