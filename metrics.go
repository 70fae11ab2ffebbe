package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Numbers about the server for Prometheus, in its text format 0.0.4 with the names that its conventions ask for. There is no
// client_golang behind it: with all that it brings, the program would be a tenth larger, and here nothing is measured, but told
// when somebody asks. Its parser and its linter judge the output in the tests.

// metricsType is the media type of the format.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// MetricKind says what the values of a metric mean.
type MetricKind string

const (
	MetricCounter MetricKind = "counter" // only grows, until a restart
	MetricGauge   MetricKind = "gauge"
)

// Metric is one number, or several of them that labels tell apart.
type Metric struct {
	Name    string
	Kind    MetricKind
	Help    string // a sentence
	Samples []MetricSample
}

// MetricSample is one value.
type MetricSample struct {
	Labels []string // names and values, in turn
	Value  float64
}

// counter makes a metric that only grows; gauge one that does not. add gives it values.
func counter(name, help string) *Metric { return &Metric{Name: name, Kind: MetricCounter, Help: help} }

func gauge(name, help string) *Metric { return &Metric{Name: name, Kind: MetricGauge, Help: help} }

func (m *Metric) add(value float64, labels ...string) *Metric {
	m.Samples = append(m.Samples, MetricSample{labels, value})
	return m
}

// WriteMetrics writes metrics, each with its help and kind; those without values are left out.
func WriteMetrics(w io.Writer, list []*Metric) error {
	out := bufio.NewWriter(w) // keeps an error for the end
	for _, m := range list {
		if len(m.Samples) == 0 {
			continue
		}
		fmt.Fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", m.Name, helpText(m.Help), m.Name, m.Kind)
		for _, s := range m.Samples {
			out.WriteString(m.Name)
			writeLabels(out, s.Labels)
			out.WriteByte(' ')
			out.WriteString(strconv.FormatFloat(s.Value, 'g', -1, 64))
			out.WriteByte('\n')
		}
	}
	return out.Flush()
}

func writeLabels(out *bufio.Writer, labels []string) {
	if len(labels) == 0 {
		return
	}
	before := byte('{')
	for i := 0; i+1 < len(labels); i += 2 {
		out.WriteByte(before)
		out.WriteString(labels[i] + `="` + labelText(labels[i+1]) + `"`)
		before = ','
	}
	out.WriteByte('}')
}

// helpText and labelText quote what the format wants quoted.
func helpText(s string) string { return strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(s) }

func labelText(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(strings.ToValidUTF8(s, "?"))
}
