package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestPriorityLines(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newPriorityHandler(LogConfig{Level: slog.LevelDebug, Stderr: &out}))
	log.Debug("a")
	log.Info("b", "x", "two\nlines")
	log.With("conn", "7").Warn("c")
	log.Error("d")
	want := "<7>msg=a\n<6>msg=b x=\"two\\nlines\"\n<4>msg=c conn=7\n<3>msg=d\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestServiceLogIsAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	log, done, err := OpenLog(LogConfig{Service: true, Dir: dir, Stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello")
	done()
	info, err := os.Stat(logFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if text, _ := os.ReadFile(logFile(dir)); !strings.Contains(string(text), "msg=hello") {
		t.Errorf("%q", text)
	}
}

func TestRecentTroubles(t *testing.T) {
	var troubles RecentTroubles
	log := troubles.Watch(slog.New(slog.DiscardHandler))
	log.Info("fine")
	log.Warn("rejected", "reason", "no such user") // every day
	log.Error("disk is full", "path", "/x", "stack", "secret of nobody")
	for i := range 20 {
		log.With("conn", i).Warn("odd", "n", i)
	}
	for i := range maxTroubles {
		log.Warn(fmt.Sprintf("other %d", i), "long", strings.Repeat("é", maxRecordText))
	}
	list := troubles.Last()
	if len(list) != maxTroubles || list[0].Text[:7] != fmt.Sprintf("other %d", maxTroubles-1) || !strings.HasSuffix(list[0].Text, "é…") || len(list[0].Text) > maxRecordText+10 {
		t.Fatalf("%d: %+v", len(list), list[0])
	}
	if last := list[len(list)-1]; last.Text != "disk is full path=/x" || last.Level != "ERROR" {
		t.Errorf("the error made room for warnings: %+v", last)
	}

	var counted RecentTroubles
	log = counted.Watch(slog.New(slog.DiscardHandler))
	for i := range 3 {
		log.Warn("odd", "n", i)
	}
	log.Error("odd")
	if list := counted.Last(); len(list) != 2 || list[1].Count != 3 || list[1].Text != "odd n=2" || list[0].Count != 1 {
		t.Errorf("%+v", list)
	}
}

func TestTailFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var text strings.Builder
	for i := range 5000 {
		_, _ = fmt.Fprintf(&text, "line %d %s\n", i, strings.Repeat("x", 60))
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[int]int{0: 0, 1: 1, 3: 3, 2000: 2000, 5000: 5000, 9000: 5000} {
		var out bytes.Buffer
		if err := tailFile(t.Context(), &out, path, lines, false); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "\n"); got != want || !strings.HasSuffix(text.String(), out.String()) {
			t.Errorf("-n %d gave %d lines", lines, got)
		}
	}
	// A log that was begun anew goes on where the one before has ended.
	rotated := filepath.Join(filepath.Dir(path), "appliance.log")
	for name, text := range map[string]string{"appliance-2026-11-28T10-00-00.000.log": "older\n", "appliance-2026-11-29T10-00-00.000.log": "1\n2\n3\n", "appliance.log": "4\n5\n"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for lines, want := range map[int]string{1: "5\n", 2: "4\n5\n", 4: "2\n3\n4\n5\n", 100: "1\n2\n3\n4\n5\n"} {
		var out bytes.Buffer
		if err := tailFile(t.Context(), &out, rotated, lines, false); err != nil || out.String() != want {
			t.Errorf("-n %d gave %q %v", lines, out.String(), err)
		}
	}
	if err := tailFile(t.Context(), &bytes.Buffer{}, path+".none", 1, false); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// Whoever follows the log misses nothing when a new file is begun.
func TestTailFollows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write := func(path, text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "one\ntwo\n")
	ctx, cancel := context.WithCancel(t.Context())
	var out lockedBuffer
	done := make(chan error)
	go func() { done <- tailFile(ctx, &out, path, 1, true) }()
	await := func(want string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); out.String() != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("got %q, want %q", out.String(), want)
			}
		}
	}
	await("two\n")
	write(path, "three\n")
	await("two\nthree\n")
	if runtime.GOOS != "windows" { // where a file that is open keeps its name
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		write(path+".1", "four\n")
		write(path, "five\n")
		await("two\nthree\nfour\nfive\n")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestReasonInLog(t *testing.T) {
	since := time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"": "<nil>",
		"time=2026-11-29T09:59:59.000Z level=ERROR msg=\"the appliance ends\" err=old\n":                                       "<nil>",
		"time=2026-11-29T10:00:01.000Z level=ERROR msg=\"the appliance ends\" err=\"port 25 \\\"smtp\\\" is in use: no\"\nx\n": `port 25 "smtp" is in use: no`,
		"msg=\"the appliance ends\" err=first\nmsg=\"the appliance ends\" err=second\n":                                        "second",
		"appliance: making the data folder: no\nappliance.service: Failed with result 'exit-code'.\n":                          "making the data folder: no",
		"appliance.service: Failed at step NAMESPACE spawning /x: No such file\nFailed to start appliance.service.\n":          "Failed at step NAMESPACE spawning /x: No such file",
		"msg=\"the appliance ended\" err=x\n": "<nil>",
	} {
		if got := fmt.Sprint(reasonIn(strings.NewReader(text), since)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestLogCommand(t *testing.T) {
	data := t.TempDir()
	if status, _, errs := runCommand(t, data, "", "log"); status != exitFailed || !strings.Contains(errs, "there is no log") {
		t.Errorf("%d %q", status, errs)
	}
	if status, _, errs := runCommand(t, data, "", "log", "-n", "-1"); status != exitUsage || !strings.Contains(errs, "number of lines") {
		t.Errorf("%d %q", status, errs)
	}
	r := startRun(t, data, "--service")
	if strings.Contains(r.stdout.String(), "Password") || !strings.Contains(r.stdout.String(), "is running") {
		t.Errorf("a service says:\n%s", r.stdout.String())
	}
	if out := mustRun(t, data, "log", "-n", "1000"); !strings.Contains(out, "msg=listening") || !strings.Contains(out, "there is no account yet") {
		t.Errorf("the log has:\n%s", out)
	}
}
