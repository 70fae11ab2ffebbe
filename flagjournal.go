package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// The flags of a message are letters in its file's name, so a STORE on thousands of messages renames thousands of files.
// The client does not wait for that: such a change is first one line in a file beside the mail, on disk before the reply,
// and the files are renamed right after (folder_flags.go). When all have their names the file is removed. A crash in
// between leaves the file, and the next opening of the folder does what it says once more.
//
//	V<uidvalidity> +(\Flagged Work) 1:4000,4003 <checksum>
//
// + adds the flags, - takes them away, = replaces all. Letters behind the sign, as in "=st(", are the rights (RFC 4314 §2.1) of
// somebody who has not all: flags that take others stay as they are. The checksum is the CRC-32 of what stands before it, in hex. A line that
// was not written to its end was not promised and is left out.

const (
	flagJournalName = "pending-flags"
	// flagJournalLimit is how large the file may become, in bytes; then changes wait until the files have their names.
	flagJournalLimit = 16 << 20
)

var errJournalFull = errors.New("too many changes of flags are pending")

// flagEntry is one change: a line of the file.
type flagEntry struct {
	validity uint32
	op       FlagOp
	may      Rights
	flags    []imap.Flag
	uids     imap.UIDSet
}

// flagOpSigns are the first letters of the three operations.
const flagOpSigns = "=+-" // FlagsReplace, FlagsAdd, FlagsRemove

// format writes the line.
func (e *flagEntry) format() []byte {
	b := fmt.Appendf(nil, "V%d %c", e.validity, flagOpSigns[e.op])
	if may := e.may & flagRights; may != flagRights {
		b = append(b, may.Letters()...)
	}
	b = append(b, '(')
	for i, flag := range e.flags {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, flag...)
	}
	b = append(append(b, ") "...), e.uids.String()...)
	b = append(b, ' ')
	return fmt.Appendf(b, "%08x\n", crc32.ChecksumIEEE(b))
}

// parseFlagEntry reads a line without its end; ok is false when it makes no sense.
func parseFlagEntry(line string) (e flagEntry, ok bool) {
	at := strings.LastIndexByte(line, ' ') + 1
	sum, err := strconv.ParseUint(line[at:], 16, 32)
	if err != nil || crc32.ChecksumIEEE([]byte(line[:at])) != uint32(sum) {
		return e, false
	}
	head, rest, ok1 := strings.Cut(line[:at], " ")
	change, set, ok2 := strings.Cut(rest, ") ")
	change, flags, ok3 := strings.Cut(change, "(")
	if !ok1 || !ok2 || !ok3 || change == "" || !strings.HasPrefix(head, "V") {
		return e, false
	}
	validity, err := strconv.ParseUint(head[1:], 10, 32)
	op := strings.IndexByte(flagOpSigns, change[0])
	if err != nil || op < 0 {
		return e, false
	}
	e.validity, e.op = uint32(validity), FlagOp(op)
	if e.may = RightsAll; len(change) > 1 {
		if e.may, ok = rightsOf(change[1:]); !ok {
			return e, false
		}
	}
	for _, flag := range strings.Fields(flags) {
		e.flags = append(e.flags, imap.Flag(flag))
	}
	for part := range strings.SplitSeq(strings.TrimSpace(set), ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		lo, err1 := strconv.ParseUint(from, 10, 32)
		hi, err2 := strconv.ParseUint(to, 10, 32)
		if err1 != nil || err2 != nil || lo == 0 || hi < lo {
			return e, false
		}
		e.uids = append(e.uids, imap.UIDRange{Start: imap.UID(lo), Stop: imap.UID(hi)})
	}
	return e, true
}

// uidRuns gives ascending UIDs as a set.
func uidRuns(uids []imap.UID) imap.UIDSet {
	var set imap.UIDSet
	for i := 0; i < len(uids); {
		j := i
		for j+1 < len(uids) && uids[j+1] == uids[j]+1 {
			j++
		}
		set = append(set, imap.UIDRange{Start: uids[i], Stop: uids[j]})
		i = j + 1
	}
	return set
}

// appendFlagEntry adds a line to the file of a folder; syncFlagJournal puts it on disk.
func appendFlagEntry(folder string, e *flagEntry) error {
	f, err := os.OpenFile(filepath.Join(folder, flagJournalName), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	line := e.format()
	if st.Size()+int64(len(line)) > flagJournalLimit {
		return errJournalFull
	}
	n, err := f.Write(line)
	if err != nil && n > 0 { // the next line must not begin within this one
		if terr := f.Truncate(st.Size()); terr != nil {
			return errors.Join(err, terr)
		}
	}
	return err
}

// loadFlagJournal reads the file of a folder; bad counts lines that make no sense. there is false when there is none.
func loadFlagJournal(folder string) (entries []flagEntry, bad int, there bool, err error) {
	data, err := os.ReadFile(filepath.Join(folder, flagJournalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, fmt.Errorf("reading the pending flags: %w", err)
	}
	for line := range bytes.Lines(data) {
		text, whole := strings.CutSuffix(string(line), "\n")
		if e, ok := parseFlagEntry(strings.TrimSuffix(text, "\r")); ok && whole {
			entries = append(entries, e)
		} else {
			bad++
		}
	}
	return entries, bad, true, nil
}

// removeFlagJournal removes the file of a folder, for good when it returns.
func removeFlagJournal(folder string) error {
	if err := removeFile(filepath.Join(folder, flagJournalName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(folder)
}
