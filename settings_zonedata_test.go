package main

import (
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// updateZones has TestZoneData write zones.gz; scripts/zones sets it.
const updateZones = "APPLIANCE_UPDATE_ZONES"

// goZones reads the zones that come with Go.
func goZones(t *testing.T) map[string][]byte {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go here to compare with its time zones")
	}
	archive, err := zip.OpenReader(filepath.Join(goRoot(t, goTool), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Skip("this go has no time zones to compare with: ", err)
	}
	defer archive.Close()
	zones := map[string][]byte{}
	for _, f := range archive.File {
		if f.FileInfo().IsDir() {
			continue
		}
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if zones[f.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
	return zones
}

// packZones gives the file with these zones.
func packZones(t *testing.T, zones map[string][]byte) []byte {
	names := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(zones)) {
		names[string(zones[name])] = append(names[string(zones[name])], name)
	}
	var out bytes.Buffer
	packed, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { return cmp.Compare(names[a][0], names[b][0]) }) {
		fmt.Fprintf(packed, "%d %s\n%s", len(data), strings.Join(names[data], " "), data)
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestZoneData compares the program's time zones with those of Go. They may be of another year, so days gone by are compared.
func TestZoneData(t *testing.T) {
	t.Parallel()
	zones := goZones(t)
	if os.Getenv(updateZones) != "" {
		if err := os.WriteFile("zones.gz", packZones(t, zones), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if len(zones) < 400 {
		t.Fatalf("Go has %d zones only", len(zones))
	}
	for name, want := range zones {
		data, err := ownZone(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ours, err := time.LoadLocationFromTZData(name, data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		theirs, err := time.LoadLocationFromTZData(name, want)
		if err != nil {
			t.Fatal(err)
		}
		for day := time.Date(2022, 1, 1, 12, 0, 0, 0, time.UTC); day.Year() < 2025; day = day.AddDate(0, 0, 7) {
			if a, b := day.In(ours).Format(time.RFC1123), day.In(theirs).Format(time.RFC1123); a != b {
				t.Errorf("%s: %s, not %s", name, a, b)
				break
			}
		}
	}
	for _, name := range []string{"", "Europe", "Europe/Nowhere", "../zones", "Europe/Berlin\n"} {
		if _, err := ownZone(name); err == nil {
			t.Errorf("%q is a zone", name)
		}
	}
}

// TestLoadZone has the program look in its own zones where the system has none.
func TestLoadZone(t *testing.T) {
	for _, name := range []string{"Europe/Berlin", "UTC"} {
		if zone, err := loadZone(name); err != nil || zone.String() != name {
			t.Errorf("%s: %v, %v", name, zone, err)
		}
	}
	if _, err := loadZone("Europe/Nowhere"); err == nil || !strings.Contains(err.Error(), "Europe/Nowhere") {
		t.Errorf("a zone that does not exist: %v", err)
	}
	if err := checkZone(strings.Repeat("x", 65)); err == nil {
		t.Error("a zone of 65 letters exists")
	}
}
