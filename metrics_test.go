package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestWriteMetrics(t *testing.T) {
	var out bytes.Buffer
	err := WriteMetrics(&out, []*Metric{
		counter("a_total", "Things\nand \\ others.").add(1e9, "name", "x\"y\\z\n\xff", "b", "2").add(0.5),
		gauge("nothing", "No value."),
		gauge("b", "B.").add(-1),
	})
	want := "# HELP a_total Things\\nand \\\\ others.\n# TYPE a_total counter\na_total{name=\"x\\\"y\\\\z\\n?\",b=\"2\"} 1e+09\na_total 0.5\n# HELP b B.\n# TYPE b gauge\nb -1\n"
	if err != nil || out.String() != want {
		t.Errorf("%v %q", err, out.String())
	}
	if WriteMetrics(brokenWriter{}, []*Metric{gauge("b", "B.").add(1)}) == nil {
		t.Error("what could not be written is no error")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }

func TestMetricsToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "metrics.json")
	m, err := OpenMetricsToken(file)
	if err != nil || m.Exists() || m.Is("") || m.Remove() != nil {
		t.Fatal(err)
	}
	first, err := m.Make()
	if err != nil || !m.Is(first) || m.Is(first[1:]) || m.Is("") {
		t.Fatalf("%q %v", first, err)
	}
	second, err := m.Make()
	if err != nil || m.Is(first) || !m.Is(second) {
		t.Error("the first token still counts")
	}
	if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), second) {
		t.Errorf("%s %v", text, err)
	}
	checkClosed(t, filepath.Dir(file))
	if again, err := OpenMetricsToken(file); err != nil || !again.Is(second) {
		t.Errorf("after a restart: %v", err)
	}
	if err := m.Remove(); err != nil || m.Is(second) {
		t.Error(err)
	}
	for _, text := range []string{"{", `{"sha256":"00"}`, `{"sha256":""}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenMetricsToken(file); err == nil || !strings.Contains(err.Error(), "remove the file, and make a new one") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// lintMetrics has the linter of Prometheus look.
func lintMetrics(t *testing.T, text string) {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// metric gives the value of a line of the metrics, "" for none.
func metric(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (p *page) plainMetrics() string { return fmt.Sprintf("http://127.0.0.1:%d/metrics", 80+p.offset) }
