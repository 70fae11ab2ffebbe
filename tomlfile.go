package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// tomlError is a mistake in one of the TOML files, as one sentence.
type tomlError struct {
	File string
	Line int    // 0: not known
	Text string // names the field
}

func (e *tomlError) Error() string {
	name := filepath.Base(e.File)
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", name, e.Text)
	}
	return fmt.Sprintf("%s line %d: %s", name, e.Line, e.Text)
}

// No file that people edit here comes near this many bytes.
const maxTOML = 1 << 20

// decodeTOML reads text into v. Keys that v has no field for are errors: a
// misspelt setting must not be taken for a default.
func decodeTOML(text, file string, v any) error {
	if at := strings.Index(text, "\x00"); at >= 0 {
		return &tomlError{file, 1 + strings.Count(text[:at], "\n"), "there is a NUL byte in the file"}
	}
	if len(text) > maxTOML {
		return &tomlError{file, 0, fmt.Sprintf("the file is larger than %d KiB", maxTOML>>10)}
	}
	meta, err := toml.Decode(text, v)
	if parse := (toml.ParseError{}); errors.As(err, &parse) {
		message := parse.Message
		if parse.LastKey != "" && !strings.Contains(message, parse.LastKey) {
			message = parse.LastKey + ": " + message
		}
		return &tomlError{file, parse.Position.Line, message}
	}
	if err != nil {
		return typeMistake(file, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		key := unknown[0]
		return &tomlError{file, lineOfKey(text, key), fmt.Sprintf("there is no setting %q", key.String())}
	}
	return nil
}

// The library's error for a value of the wrong type has its place in its text
// alone.
var (
	typeMistakePlace = regexp.MustCompile(`^toml: (?:line (\d+) )?\(last key "([^"]*)"\): (.*)$`)
	typeMistakeTypes = regexp.MustCompile(`^incompatible types: TOML value has type (\S+); destination has type (\S+)$`)
)

// typeMistake puts such an error into our words.
func typeMistake(file string, err error) error {
	place := typeMistakePlace.FindStringSubmatch(err.Error())
	if place == nil {
		return &tomlError{file, 0, strings.TrimPrefix(err.Error(), "toml: ")}
	}
	text := place[3]
	if types := typeMistakeTypes.FindStringSubmatch(text); types != nil {
		text = fmt.Sprintf("the value is of the type %s where %s is wanted", types[1], types[2])
	}
	line, _ := strconv.Atoi(place[1])
	return &tomlError{file, line, place[2] + ": " + text}
}

// tomlLine is what a line of a file is about, as far as can be told by
// looking at its beginning.
type tomlLine struct {
	table string // "user" and "user.app_password" for [[user]] …; "" above the first
	head  bool   // the line is the table's header
	key   string // of "key = value", else ""
}

// scanTOML classifies lines. It is for finding places in files that people
// edit, not for reading values: a multi-line string may mislead it.
func scanTOML(text string) []tomlLine {
	lines := strings.Split(text, "\n")
	out := make([]tomlLine, len(lines))
	table := ""
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if name, ok := tableName(line); ok {
			table = name
			out[i] = tomlLine{table: table, head: true}
			continue
		}
		out[i].table = table
		if key, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			out[i].key = strings.Trim(strings.TrimSpace(key), `"'`)
		}
	}
	return out
}

// tableName reads "[name]" or "[[name]]".
func tableName(line string) (string, bool) {
	line, _, _ = strings.Cut(line, "#")
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "[") || !strings.HasSuffix(line, "]") {
		return "", false
	}
	name := strings.Trim(line, "[] \t")
	if name == "" || strings.ContainsAny(name, `,"'=`) {
		return "", false
	}
	return name, true
}

// lineOfKey finds the first line that sets the key or opens it as a table; 0
// for none.
func lineOfKey(text string, key toml.Key) int {
	parent, last := strings.Join(key[:len(key)-1], "."), key[len(key)-1]
	for i, line := range scanTOML(text) {
		if line.head && line.table == key.String() || line.table == parent && line.key == last {
			return i + 1
		}
	}
	return 0
}

// tomlPlace names a field in an array of tables: the nth table, in it the mth
// sub-table or (m < 0) the table itself, and there the key or ("") its header.
type tomlPlace struct {
	table string
	n     int
	sub   string
	m     int
	key   string
}

// lineOfPlace finds a place; where the key is missing the table's header.
func lineOfPlace(text string, p tomlPlace) int {
	n, m, best := -1, -1, 0
	for i, line := range scanTOML(text) {
		if line.head && line.table == p.table {
			n, m = n+1, -1
		}
		if line.head && p.sub != "" && line.table == p.table+"."+p.sub {
			m++
		}
		want := p.table
		if p.sub != "" {
			want += "." + p.sub
		}
		if n != p.n || line.table != want || p.sub != "" && m != p.m {
			continue
		}
		if line.head {
			best = i + 1
		}
		if line.key == p.key && p.key != "" {
			return i + 1
		}
	}
	return best
}

// tomlBlock is a piece of a file: a top-level table with what lies under it
// and the comment right above it, or (table "") what precedes the first.
type tomlBlock struct {
	table   string
	comment string // with line ends
	body    string // with line ends
}

// splitTOML cuts a file into blocks. Put together again they are the file.
func splitTOML(text string) []tomlBlock {
	blocks := []tomlBlock{{}}
	marks := scanTOML(text)
	for i, line := range strings.SplitAfter(text, "\n") {
		if mark := marks[i]; mark.head && !strings.Contains(mark.table, ".") {
			last := &blocks[len(blocks)-1]
			var comment string
			last.body, comment = cutTrailingComment(last.body)
			blocks = append(blocks, tomlBlock{table: mark.table, comment: comment})
		}
		blocks[len(blocks)-1].body += line
	}
	return blocks
}

// cutTrailingComment cuts the comment lines at the end of text off.
func cutTrailingComment(text string) (rest, comment string) {
	lines := strings.SplitAfter(text, "\n")
	at := len(lines)
	if at > 0 && lines[at-1] == "" {
		at--
	}
	end := at
	for at > 0 && strings.HasPrefix(strings.TrimSpace(lines[at-1]), "#") {
		at--
	}
	return strings.Join(lines[:at], ""), strings.Join(lines[at:end], "")
}
