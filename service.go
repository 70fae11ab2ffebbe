package main

import (
	"context"
	"os"
	"runtime"

	"github.com/kardianos/service"
)

// This file and its siblings know nothing of mail: a service is a file that is run with arguments, as a user of its own, in a
// folder that is this user's.

const (
	serviceName  = "appliance"
	serviceTitle = "Appliance mail server"
)

// ServicePlan is how the service is to be run.
type ServicePlan struct {
	Program string   // where its file lies
	Args    []string // what it is run with
	Data    string   // the folder that it writes to
	User    string   // whose folder it is, and as whom it runs
	Options []string // of Args, what a person has asked for
	Ports   []int    // that others are to reach
	// Fill puts into the folder what the service is to find there, before it is the user's; nil: nothing.
	Fill func() error
}

// fill is Fill.
func (p *ServicePlan) fill() error {
	if p.Fill == nil {
		return nil
	}
	return p.Fill()
}

// ServiceState is what the service manager knows of the service.
type ServiceState struct {
	Manager   string   `json:"manager"` // "systemd", "OpenRC", "System V init", "procd", "launchd" or "Windows"
	Installed bool     `json:"installed"`
	Running   bool     `json:"running"` // or being started
	AtBoot    bool     `json:"at_boot"`
	Options   []string `json:"options,omitempty"` // that a person has asked for
}

// serviceManager is the service manager of an operating system.
type serviceManager interface {
	State() ServiceState
	// Write makes the service known, or changes it, and has it start with the system. undo brings back what was known before.
	Write(plan *ServicePlan) (undo func() error, err error)
	// Remove makes it unknown. It does not run.
	Remove() error
	// Start returns when the manager has started it; it may not be ready. Stop returns when it has ended.
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	// LogCommand prints what the service has logged; nil where it writes a file.
	LogCommand() []string
}

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
	manager, err := service.New(s, &service.Config{Name: serviceName})
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
