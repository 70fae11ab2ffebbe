package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// settingChange is a new value of a text setting; "" takes the setting away, so that its default holds.
type settingChange struct{ key, value string }

// changeSettings changes settings in the file that people edit, too: their comments and all else in it stay. It writes
// nothing when nothing changes or the file would not be read again.
func changeSettings(file string, changes ...settingChange) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading the settings: %w", err)
	}
	text := string(old)
	for _, c := range changes {
		text = withSetting(text, c)
	}
	if text == string(old) {
		return nil
	}
	if err := decodeTOML(text, file, new(Settings)); err != nil {
		return err
	}
	if err := writeFileAtomic(file, []byte(text)); err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	return nil
}

// withSetting gives the text of the file with one setting changed: in its line, or in a new one above the first table.
func withSetting(text string, c settingChange) string {
	line := ""
	if c.value != "" {
		value, _ := json.Marshal(c.value) // a JSON string is one of TOML, too
		line = c.key + " = " + string(value)
	}
	var lines []string
	if text != "" {
		lines = strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	}
	at := slices.IndexFunc(scanTOML(strings.Join(lines, "\n")), func(l tomlLine) bool { return l.table == "" && l.key == c.key })
	switch {
	case at >= 0 && line != "":
		lines[at] = line
	case at >= 0:
		lines = slices.Delete(lines, at, at+1)
	case line != "":
		end := slices.IndexFunc(scanTOML(strings.Join(lines, "\n")), func(l tomlLine) bool { return l.head })
		if end < 0 || len(lines) == 0 {
			end = len(lines)
		}
		lines = slices.Insert(lines, end, line)
	}
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}
