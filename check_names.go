package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf16"
)

// Which names which system can hold. Windows has neither < > : " / \ | ? * nor control characters in a name, no dot or blank at
// its end, takes some names for devices, and does not tell capitals from small letters; macOS does not tell those either.

// maxWindowsName is what NTFS allows for one name, in units of UTF-16.
const maxWindowsName = 255

// windowsNameTrouble says why Windows cannot hold a name, "" where it can.
func windowsNameTrouble(name string) string {
	switch {
	case strings.ContainsAny(name, `<>:"/\|?*`):
		return fmt.Sprintf("%q is not for names there", name[strings.IndexAny(name, `<>:"/\|?*`)])
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }):
		return "control characters are not for names there"
	case strings.HasSuffix(name, "."), strings.HasSuffix(name, " "):
		return "no name ends in a dot or blank there"
	case reservedName(strings.ToLower(name)):
		return "it is the name of a device there"
	case len(utf16.Encode([]rune(name))) > maxWindowsName:
		return fmt.Sprintf("names have %d characters at most there", maxWindowsName)
	}
	return ""
}

// mangledName is a message's name whose separator a program has replaced that copied it to where a colon cannot be: by an
// underscore (most programs that unpack archives), by a character for private use (Samba, Cygwin, macOS), by %3A or %3a.
var mangledName = regexp.MustCompile("^([^:;]*,[SW]=[0-9]+)(?:_|-|\uf03a|\uf022|%3[Aa])2,([A-Za-z]*)$")

// unmangled gives the parts of such a name.
func unmangled(name string) (base, info string, ok bool) {
	m := mangledName.FindStringSubmatch(name)
	if m == nil {
		return "", "", false
	}
	return m[1], ":2," + m[2], true
}

// nameLook gathers names that some system cannot hold.
type nameLook struct {
	windows trouble             // besides the separators of messages, which are counted apart
	folders map[string][]string // folders of mail in one folder, by what Windows and macOS take for the same name
	same    trouble

	colons, semicolons, mangled trouble
}

// at takes one entry in.
func (l *nameLook) at(path, below, name string) {
	if base, info := splitName(name); info != "" && strings.HasPrefix(info[1:], "2,") { // a message: carry changes the separator
		name = base
	}
	if why := windowsNameTrouble(name); why != "" {
		l.windows.add(below + ": " + why)
	}
	if strings.HasPrefix(name, ".") {
		if l.folders == nil {
			l.folders = map[string][]string{}
		}
		key := filepath.Join(filepath.Dir(path), strings.ToLower(name))
		l.folders[key] = append(l.folders[key], below)
	}
}

// message takes the name of a message in.
func (l *nameLook) message(below, name string) {
	switch _, info := splitName(name); {
	case strings.HasPrefix(info, ":"):
		l.colons.add(below)
	case strings.HasPrefix(info, ";"):
		l.semicolons.add(below)
	default:
		if _, _, ok := unmangled(name); ok {
			l.mangled.add(below)
		}
	}
}

// nameFindings says what is in the way of each system.
func (l *folderLook) nameFindings() []Finding {
	n := &l.names
	for _, key := range keysInOrder(n.folders) {
		if same := n.folders[key]; len(same) > 1 {
			n.same.add(wordList(same))
		}
	}
	found := l.separatorFindings()
	if n.windows.count > 0 {
		found = append(found, Finding{Name: "windows", State: l.check.elsewhere(StateBad, systemWindows),
			Sentence: "Windows cannot hold all names: " + n.windows.words("name", "names") + ".",
			Do:       "Before the folder goes to Windows, stop the appliance and run: appliance carry windows. It says which it cannot rename; do that by hand."})
	}
	if n.same.count > 0 {
		found = append(found, Finding{Name: "capitals", State: l.check.elsewhere(StateBad, systemWindows, systemMacOS),
			Sentence: "Windows and macOS take some folders for the same one: " + n.same.words("case", "cases") + ".",
			Do:       "Before the folder goes there, rename one of them in a mail program."})
	}
	if len(found) == 0 {
		found = single("names", "", StateOK, "Every system can hold all names.", "")
	}
	return found
}

// separatorFindings says what stands between the names of messages and their flags.
func (l *folderLook) separatorFindings() (found []Finding) {
	n := &l.names
	if n.mangled.count > 0 {
		found = append(found, Finding{Name: "separators", State: StateBad,
			Sentence: "A program that copied the mail has changed its names, so that flags and UIDs are not found: " + n.mangled.words("message", "messages") + ".",
			Do:       "Stop the appliance and run: appliance carry " + carryWord(l.check.System) + ". It gives them their names back."})
	}
	if n.colons.count > 0 && (l.check.System == systemWindows || n.semicolons.count == 0) {
		found = append(found, Finding{Name: "separators", State: l.check.elsewhere(StateBad, systemWindows),
			Sentence: "The names of messages have colons, which Windows cannot hold: " + n.colons.words("message", "messages") + ".",
			Do:       "Before the folder goes to Windows, stop the appliance and run: appliance carry windows"})
	}
	if n.semicolons.count > 0 && l.check.System != systemWindows {
		found = append(found, Finding{Name: "separators", State: StateNote,
			Sentence: "The names of messages are as on Windows, with semicolons; the appliance reads them, but other programs, such as Dovecot and mutt, do not see their flags: " + n.semicolons.words("message", "messages") + ".",
			Do:       "Nothing need be done. For the sake of other programs, stop the appliance and run: appliance carry unix"})
	}
	return found
}

// carryWord is what carry calls a system.
func carryWord(system string) string {
	if system == systemWindows {
		return carryToWindows
	}
	return carryToUnix
}
