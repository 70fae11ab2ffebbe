package main

import (
	"context"
	"os"
	"runtime"

	"github.com/kardianos/service"
)

// startedByServiceManager says whether a service manager that wants to be
// spoken to started this process. Only Windows has one: elsewhere a service
// is a process like any other, which ends by a signal.
func startedByServiceManager() bool {
	return runtime.GOOS == "windows" && !service.Interactive()
}

// supervised is a job under a service manager.
type supervised struct {
	job    func(context.Context) int
	cancel context.CancelFunc
	ended  chan struct{} // closed when the job is over
}

// runAsService runs the job until the service manager stops it, and gives the
// exit status. A job that ends by itself ends the process with its status, for
// the service manager to see it as a failure.
func runAsService(job func(context.Context) int) int {
	s := &supervised{job: job, ended: make(chan struct{})}
	manager, err := service.New(s, &service.Config{Name: "appliance"})
	if err != nil || manager.Run() != nil {
		return 1
	}
	return 0
}

// Start begins the job and returns at once, as service managers demand.
func (s *supervised) Start(service.Service) error {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.ended)
		if status := s.job(ctx); ctx.Err() == nil {
			os.Exit(status)
		}
	}()
	return nil
}

// Stop asks the job to end and waits for it.
func (s *supervised) Stop(service.Service) error {
	s.cancel()
	<-s.ended
	return nil
}
