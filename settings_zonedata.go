package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// zoneData is all time zones, for Windows and small Linux systems, which have none: what Go's package time/tzdata holds, in an
// eighth of its size. Compressed by gzip it is, for each distinct zone, a line with its size in bytes and its names, and then
// those bytes (RFC 8536). scripts/zones writes the file, TestZoneData compares it with Go's.
//
//go:embed zones.gz
var zoneData []byte

// loadZone gives a time zone by its name in the IANA database: the system's, else the program's own.
func loadZone(name string) (*time.Location, error) {
	location, err := time.LoadLocation(name)
	if err == nil {
		return location, nil
	}
	data, unknown := ownZone(name)
	if unknown != nil {
		return nil, err
	}
	return time.LoadLocationFromTZData(name, data)
}

// machineZone gives the time zone of the machine; of the one that TZ names, also where the system does not know it.
func machineZone() *time.Location {
	if name := os.Getenv("TZ"); name != "" && time.Local.String() == "UTC" {
		if zone, err := loadZone(strings.TrimPrefix(name, ":")); err == nil {
			return zone
		}
	}
	return time.Local
}

// ownZone looks a zone up in zoneData.
func ownZone(name string) ([]byte, error) {
	unpacked, err := gzip.NewReader(bytes.NewReader(zoneData))
	if err != nil {
		return nil, err
	}
	in := bufio.NewReader(unpacked)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return nil, fmt.Errorf("the program knows no time zone %q", name)
		} else if err != nil {
			return nil, err
		}
		names := strings.Fields(line)
		size, err := strconv.Atoi(names[0])
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names[1:], name) {
			if _, err := in.Discard(size); err != nil {
				return nil, err
			}
			continue
		}
		data := make([]byte, size)
		_, err = io.ReadFull(in, data)
		return data, err
	}
}
