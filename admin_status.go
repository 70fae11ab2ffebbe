package main

import (
	"errors"
	"time"
)

// ServerStatus is how an appliance is that runs.
type ServerStatus struct {
	Version      string             `json:"version"`
	Commit       string             `json:"commit,omitempty"`
	PID          int                `json:"pid"`
	Since        time.Time          `json:"since"`
	Hostname     string             `json:"hostname"`
	Data         string             `json:"data"`
	Ports        []Port             `json:"ports"`
	Accounts     int                `json:"accounts"`
	Queue        int                `json:"queue"`     // messages that wait for other servers
	Memory       int64              `json:"memory"`    // octets that the process has from the system
	DiskFree     int64              `json:"disk_free"` // octets where the data folder lies
	DiskAll      int64              `json:"disk_all"`  // octets of that file system; 0: the system does not tell
	Certificates []CertificateState `json:"certificates"`
	Troubles     []Trouble          `json:"errors"` // warnings and errors since the start, the last one first
}

// FirstAccount is what became of the wish for a first account.
type FirstAccount struct {
	Address string // of the owner
	New     bool   // it was made now
	Text    string // what its owner must know, with the password where it is new
}

// onServer carries out orders that only an appliance that runs can.
func (ad *admin) onServer(o order) (answer, error) {
	if ad.status == nil {
		return answer{}, errors.New("the appliance does not run")
	}
	if o.Do == "status" {
		return answer{Status: ad.status()}, nil
	}
	first, err := ad.firstAccount(o.Name)
	return answer{Address: first.Address, Text: first.Text, Changed: !first.New}, err
}
