package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/metrics"
	"strings"
	"time"
)

// status is how the appliance is that runs in this process.
func (h *house) status(ports []Port, queue *Queue, certs *Certificates) *ServerStatus {
	v := thisVersion()
	disk, err := freeSpace(string(h.data))
	if err != nil {
		h.log.Debug("the disk cannot be asked", "err", err) // it is 0 then, which nobody is shown
	}
	return &ServerStatus{
		Version: v.Version, Commit: v.Commit, PID: os.Getpid(), Since: h.since, Hostname: h.hostname, Data: string(h.data),
		Ports: ports, Accounts: len(h.accounts.Users()), Queue: queue.Len(),
		Memory: processMemory(), DiskFree: disk.free, DiskAll: disk.all,
		Certificates: nonNil(certs.State()), Troubles: nonNil(h.troubles.Last()),
	}
}

// processMemory is how much memory the process has from the system, in octets: that of Go, which is nearly all of it.
func processMemory() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}

// statusReport is what status --json prints.
type statusReport struct {
	Running bool          `json:"running"`
	Service *ServiceState `json:"service,omitempty"` // where one is installed
	*ServerStatus
}

// showStatus tells how the appliance is. It fails where none runs.
func showStatus(ctx context.Context, c *call) error {
	report := statusReport{}
	in, err := c.installation()
	if err == nil {
		if state := in.State(); state.Installed {
			report.Service = &state
		}
	}
	report.ServerStatus, err = c.askStatus(ctx)
	report.Running = report.ServerStatus != nil || report.Service != nil && report.Service.Running && os.IsPermission(err)
	if c.opt.json {
		if err := c.sayJSON(&report); err != nil {
			return err
		}
	}
	switch {
	case report.ServerStatus != nil:
		if !c.opt.json {
			c.sayStatus(&report, time.Now())
		}
		return nil
	case report.Running:
		if !c.opt.json {
			c.say("The appliance runs as a service of %s. An administrator sees more: %s", report.Service.Manager, elevated("appliance status"))
		}
		return nil
	}
	return c.notRunning(&report, err)
}

// notRunning says that none runs, and what to do.
func (c *call) notRunning(report *statusReport, err error) error {
	switch {
	case os.IsPermission(err):
		return fmt.Errorf("the data folder %s is closed to you: `%s`", c.data, elevated("appliance status"))
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case report.Service == nil:
		return fmt.Errorf("the appliance does not run with the data folder %s, and is not installed as a service: `%s` does that", c.data, elevated("appliance install"))
	case report.Service.Running:
		return fmt.Errorf("the service of %s is being started, and does not answer yet; `%s` shows what it does", report.Service.Manager, elevated("appliance log"))
	}
	return fmt.Errorf("the appliance is installed as a service of %s and does not run: `%s` starts it, `%s` shows what happened", report.Service.Manager, elevated("appliance start"), elevated("appliance log"))
}

// askStatus asks the appliance that runs. The error is fs.ErrNotExist where none does.
func (c *call) askStatus(ctx context.Context) (*ServerStatus, error) {
	if _, err := os.Stat(string(c.data)); err != nil {
		return nil, err
	}
	a, err := ask(ctx, c.data.control(), order{Do: "status"})
	if errors.Is(err, errNoAnswer) {
		return nil, err
	}
	if err != nil && !os.IsPermission(err) {
		return nil, os.ErrNotExist // it has just ended, or crashed, and has left its file
	}
	if err == nil && a.Status == nil {
		err = fmt.Errorf("the appliance that runs is older than this one and does not tell its status: `%s`", elevated("appliance restart"))
	}
	return a.Status, err
}

// sayStatus prints a status for people.
func (c *call) sayStatus(report *statusReport, now time.Time) {
	s := report.ServerStatus
	line := func(title, format string, args ...any) { c.say("  %-13s "+format, append([]any{title}, args...)...) }
	c.say("The appliance has run for %s, since %s.\n", durationWords(now.Sub(s.Since)), s.Since.Local().Format("2006-01-02 15:04:05"))
	version := s.Version
	if len(s.Commit) >= 12 && !strings.Contains(version, s.Commit[:12]) {
		version += " (" + s.Commit[:12] + ")"
	}
	line("Version", "%s, process %d", version, s.PID)
	line("Service", "%s", report.serviceWords())
	line("Name", "%s", s.Hostname)
	line("Data", "%s", s.Data)
	line("Ports", "%s", portWords(s.Ports))
	line("Accounts", "%d", s.Accounts)
	line("Queue", "%s", queueWords(s.Queue))
	line("Memory", "%sB", roundSize(s.Memory))
	if s.DiskAll > 0 {
		line("Disk", "%sB free of %sB", roundSize(s.DiskFree), roundSize(s.DiskAll))
	}
	for i := range s.Certificates {
		cert := &s.Certificates[i]
		text := fmt.Sprintf("%s, from %s, until %s", cert.Name, cert.Issuer, cert.Until.Local().Format(time.DateOnly))
		if trouble := cert.troubleWords(now); trouble != "" {
			text += ": " + trouble
		}
		line([]string{"Certificate", ""}[min(i, 1)], "%s", text)
	}
	if len(s.Troubles) == 0 {
		line("Troubles", "none since the start")
		return
	}
	c.say("\nThe last troubles:\n")
	for _, t := range s.Troubles {
		times := ""
		if t.Count > 1 {
			times = fmt.Sprintf(" (%d times)", t.Count)
		}
		c.say("  %s %-5s %s%s", t.Time.Local().Format("01-02 15:04:05"), t.Level, cleanText(t.Text), times)
	}
}

func (r *statusReport) serviceWords() string {
	switch {
	case r.Service == nil || !r.Service.Running:
		return "none: somebody has started it"
	case r.Service.AtBoot:
		return "of " + r.Service.Manager + ", starts with the machine"
	}
	return "of " + r.Service.Manager + ", does not start with the machine"
}

func portWords(ports []Port) string {
	var words []string
	for _, p := range ports {
		words = append(words, fmt.Sprintf("%d %s", p.Number, p.Name))
	}
	return strings.Join(words, ", ")
}

func queueWords(waiting int) string {
	if waiting == 0 {
		return "nothing waits"
	}
	return fmt.Sprintf("%d waiting; `appliance queue list` shows why", waiting)
}
