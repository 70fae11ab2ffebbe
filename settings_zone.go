package main

import (
	"fmt"
	"sync"
	"time"
)

// HouseZone is the time zone in which the page tells times: the setting, or the machine's. Safe for concurrent use.
type HouseZone struct {
	file string // of the settings

	mu       sync.Mutex
	location *time.Location
}

// checkZone says what is wrong with the name of a time zone.
func checkZone(name string) error {
	if _, err := loadZone(name); err != nil || len(name) > 64 {
		return fmt.Errorf("%q is no time zone: take one such as Europe/Berlin", name)
	}
	return nil
}

// OpenZone gives the zone that the settings name, the machine's for "".
func OpenZone(file, name string) (*HouseZone, error) {
	z := &HouseZone{file: file, location: machineZone()}
	if name == "" {
		return z, nil
	}
	location, err := loadZone(name)
	if err != nil {
		return nil, fmt.Errorf("time_zone: %w", err)
	}
	z.location = location
	return z, nil
}

// Location gives the zone.
func (z *HouseZone) Location() *time.Location {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.location
}

// Set chooses another zone, and keeps it in the settings.
func (z *HouseZone) Set(name string) error {
	if err := checkZone(name); err != nil {
		return err
	}
	location, err := loadZone(name)
	if err == nil {
		err = changeSettings(z.file, settingChange{"time_zone", name})
	}
	if err != nil {
		return err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.location = location
	return nil
}
