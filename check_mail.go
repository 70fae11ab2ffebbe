package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// mailLook gathers what is wrong within maildrops.
type mailLook struct {
	accounts, folders, messages int

	incomplete trouble // folders without cur, new or tmp
	lists      trouble // dovecot-uidlist
	keywords   trouble // dovecot-keywords and the file of those without letters
	others     trouble // the other files of text beside the mail
}

// inMail takes an entry below DATA/mail in: inMail is its path there, DOMAIN/USER/….
func (l *folderLook) inMail(path, inMail string, d fs.DirEntry) error {
	parts := strings.Split(inMail, string(filepath.Separator))
	name := d.Name()
	switch {
	case len(parts) < 2:
	case len(parts) == 2 && d.IsDir():
		l.mail.accounts++
		l.maildir(path)
		l.count(&l.mail.others, path, attributesName, func(dir string) (int, error) {
			_, bad, err := loadAttributes(dir)
			return bad, err
		})
	case len(parts) == 3 && d.IsDir() && len(name) > 1 && name[0] == '.':
		l.maildir(path)
	case d.IsDir() && (name == "cur" || name == "new"):
	case isMessagePath(parts):
		l.mail.messages++
		l.names.message(l.below(path), name)
	case strings.HasSuffix(name, ".lock"):
		l.locks = append(l.locks, path)
	}
	return nil
}

// isMessagePath says whether a path below DATA/mail is a message's: DOMAIN/USER/cur/NAME or DOMAIN/USER/.FOLDER/cur/NAME.
func isMessagePath(parts []string) bool {
	n := len(parts)
	if n != 4 && n != 5 {
		return false
	}
	return (parts[n-2] == "cur" || parts[n-2] == "new") && !strings.HasPrefix(parts[n-1], ".")
}

// maildir looks at one folder of mail and the files beside it.
func (l *folderLook) maildir(dir string) {
	l.mail.folders++
	for _, sub := range [...]string{"cur", "new", "tmp"} {
		if st, err := os.Stat(filepath.Join(dir, sub)); errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
			l.mail.incomplete.add(l.below(dir) + " has no " + sub)
			break
		}
	}
	l.uidlist(dir)
	l.count(&l.mail.keywords, dir, keywordsName, func(dir string) (int, error) {
		table, bad, err := loadKeywords(dir)
		if err != nil || bad > 0 {
			return bad, err
		}
		_, bad, _, err = loadMoreKeywords(dir, &table)
		return bad, err
	})
	l.count(&l.mail.others, dir, flagJournalName, func(dir string) (int, error) {
		_, bad, _, err := loadFlagJournal(dir)
		return bad, err
	})
	l.count(&l.mail.others, dir, aclName, func(dir string) (int, error) { return 0, readACL(dir).broken })
}

// uidlist looks at the file that says which message has which UID.
func (l *folderLook) uidlist(dir string) {
	list := uidlist{path: filepath.Join(dir, uidlistName)}
	_, damage, err := list.load()
	switch below := l.below(list.path); {
	case errors.Is(err, fs.ErrPermission): // said already
	case err != nil:
		l.mail.lists.add(below + ": " + cause(err))
	case damage.lines > 0:
		l.mail.lists.add(fmt.Sprintf("%s: %s", below, damage.first))
	}
}

// count reads a file of text that says itself how many lines of it make no sense.
func (l *folderLook) count(t *trouble, dir, name string, read func(dir string) (bad int, err error)) {
	switch bad, err := read(dir); {
	case errors.Is(err, fs.ErrPermission):
	case err != nil:
		t.add(l.below(filepath.Join(dir, name)) + ": " + cause(err))
	case bad > 0:
		t.add(fmt.Sprintf("%s: %d lines make no sense", l.below(filepath.Join(dir, name)), bad))
	}
}

// mailFindings says what is wrong with the mail.
func (l *folderLook) mailFindings() []Finding {
	m := &l.mail
	found := single("mail", "", StateOK, fmt.Sprintf("There are %d messages in %d folders of %d mailboxes.", m.messages, m.folders, m.accounts), "")
	for _, kind := range []struct {
		t              *trouble
		state          FindingState
		name, sentence string
		do             string
	}{
		{&m.incomplete, StateWarn, "folders", "Folders of mail are not whole, as after a copy that leaves out what is empty: ", "Make them, as empty folders of the same owner: cur, new and tmp in each."},
		{&m.lists, StateWarn, "uids", "Lists of UIDs are damaged: ", "Put the file back from a backup. Without one the appliance makes a new list, and mail programs fetch that folder once more."},
		{&m.keywords, StateWarn, "keywords", "Lists of keywords are damaged: ", "Put the file back from a backup. Without one, messages keep all but the keywords that are named there."},
		{&m.others, StateWarn, "files", "Files beside the mail are damaged: ", "Put the file back from a backup. Without one the appliance leaves out what it cannot read."},
	} {
		if kind.t.count > 0 {
			found = append(found, Finding{Name: kind.name, State: kind.state, Sentence: kind.sentence + kind.t.words("place", "places") + ".", Do: kind.do})
		}
	}
	return found
}
