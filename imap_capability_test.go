package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// capabilityProofs says for each capability what a client sends in the transcripts that exercise it. Those without a text
// are tried elsewhere, as the comment says.
var capabilityProofs = map[string]string{
	"IMAP4rev1": "LSUB", "IMAP4rev2": "ENABLE IMAP4rev2", "LITERAL+": "", // every transcript with <LIT …>
	"SASL-IR": "", // sasl_test.go
	"ENABLE":  "ENABLE", "ID": " ID ", "IDLE": "IDLE", "NAMESPACE": "NAMESPACE", "UIDPLUS": "UID EXPUNGE",
	"ESEARCH": "SEARCH RETURN", "SEARCHRES": "RETURN (SAVE)", "LIST-EXTENDED": "LIST (SUBSCRIBED", "LIST-STATUS": "RETURN (STATUS",
	"SPECIAL-USE": "LIST (SPECIAL-USE", "CREATE-SPECIAL-USE": "(USE (", "MOVE": " MOVE ", "STATUS=SIZE": "SIZE", "BINARY": "BINARY",
	"UNSELECT": "UNSELECT", "CHILDREN": "CHILDREN", "MULTIAPPEND": "", // imap_append tests: several literals in one command
	"UTF8=ACCEPT": "ENABLE UTF8=ACCEPT", "CONDSTORE": "UNCHANGEDSINCE", "OBJECTID": "EMAILID", "PREVIEW": "PREVIEW", "REPLACE": "REPLACE",
	"INPROGRESS": "", // a command that takes long: TestIMAPProgress
	"CATENATE":   "CATENATE", "QRESYNC": "(QRESYNC (", "SORT": " SORT ", "SORT=DISPLAY": "DISPLAY", "ESORT": "SORT RETURN",
	"THREAD=ORDEREDSUBJECT": "THREAD ORDEREDSUBJECT", "THREAD=REFERENCES": "THREAD REFERENCES", "THREAD=REFS": "THREAD REFS",
	"I18NLEVEL=1": "", // the comparator of SORT and SEARCH: sort.txt and search.txt with letters beyond ASCII
	"WITHIN":      "YOUNGER", "SEARCH=FUZZY": "FUZZY", "PARTIAL": "PARTIAL", "SAVEDATE": "SAVEDATE", "CONTEXT=SEARCH": "SEARCH RETURN (UPDATE",
	"CONTEXT=SORT": "SORT RETURN (UPDATE", "MULTISEARCH": "ESEARCH IN", "NOTIFY": "NOTIFY SET", "QUOTA": "GETQUOTAROOT",
	"QUOTA=RES-STORAGE": "GETQUOTA", "QUOTA=RES-MESSAGE": "GETQUOTA", "METADATA": "SETMETADATA", "LIST-METADATA": "RETURN (METADATA",
	"ACL": "SETACL", "RIGHTS=texk": "LISTRIGHTS", "LIST-MYRIGHTS": "RETURN (MYRIGHTS",
}

// TestIMAPCapabilitiesAreTried fails for a capability that no transcript exercises.
func TestIMAPCapabilitiesAreTried(t *testing.T) {
	files, err := filepath.Glob("testdata/imap/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var sent strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "C") {
				sent.WriteString(strings.ToUpper(line))
			}
		}
	}
	for _, name := range append(append([]string{}, imapCapsBefore...), imapCapsAfter...) {
		proof, known := capabilityProofs[name]
		if !known {
			t.Errorf("%s is announced, and nothing says what tries it", name)
		}
		if !strings.Contains(sent.String(), strings.ToUpper(proof)) {
			t.Errorf("%s is announced, and no client sends %q", name, proof)
		}
	}
}
