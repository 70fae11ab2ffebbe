package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"
)

// What systemd is told of the service that it runs (sd_notify(3), sd_watchdog_enabled(3)). Nobody else asks.

// attendManager tells the service manager that the service is ready, now, and that it ends, when ctx does. In between it says
// every so often that all is well, as long as alive does: whoever is not heard of is started anew. end stops that.
func attendManager(ctx context.Context, alive func(context.Context) error) (end func()) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return func() {}
	}
	tellManager(socket, "READY=1")
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		watchOver(ctx, socket, watchdogPause(os.Getenv), alive)
		tellManager(socket, "STOPPING=1")
	}()
	return func() {
		cancel()
		<-done
	}
}

// watchOver tells the watchdog every so often that all is well. 0: nobody wants to know.
func watchOver(ctx context.Context, socket string, every time.Duration, alive func(context.Context) error) {
	if every == 0 {
		<-ctx.Done()
		return
	}
	for {
		if alive(ctx) == nil {
			tellManager(socket, "WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// watchdogPause is a third of the time after which the watchdog gives this process up, 0 where there is none.
func watchdogPause(getenv func(string) string) time.Duration {
	micros, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if pid := getenv("WATCHDOG_PID"); err != nil || micros <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(micros) * time.Microsecond / 3
}

// tellManager sends one notice. A manager that does not listen cannot be helped.
func tellManager(socket, notice string) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(notice))
}
