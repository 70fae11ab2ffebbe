package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// textFindings reads the files that people edit, and says what they name that is not here.
func (l *folderLook) textFindings() []Finding {
	dir := l.check.Dir
	var found []Finding
	ok := true
	for _, file := range []struct {
		path string
		read func(path string) error
	}{
		{dir.settings(), func(path string) error { _, err := readSettings(path); return err }},
		{dir.accounts(), readAccountsFile},
		{dir.relays(), func(path string) error { _, err := OpenRelays(path); return err }},
		{dir.collect(), func(path string) error { return (&collectBook{file: path}).read() }},
	} {
		err := file.read(file.path)
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // the last is said already
			continue
		}
		ok = false
		found = append(found, Finding{Name: "text", Subject: filepath.Base(file.path), State: StateBad, Sentence: oneLineText(err.Error()) + ".",
			Do: "Mend the line, or put the file back from a backup. The appliance does not start with it."})
	}
	if _, err := os.Stat(dir.accounts()); errors.Is(err, fs.ErrNotExist) {
		ok = false
		found = append(found, Finding{Name: "text", Subject: "accounts.toml", State: StateBad, Sentence: "accounts.toml is missing: nobody could log in, and the next start would make a new account of the owner.",
			Do: "Put it back from a backup or from the machine that the folder comes from."})
	}
	if ok {
		found = single("text", "", StateOK, "Settings, accounts, relays and accounts elsewhere can be read.", "")
	}
	return append(found, l.pathFindings()...)
}

// readAccountsFile says what is wrong with the accounts.
func readAccountsFile(path string) error {
	text, err := os.ReadFile(path)
	if err == nil {
		_, err = parseAccounts(string(text), path)
	}
	return err
}

// pathFindings says which files the settings name that this machine does not have. Of a folder that is to run elsewhere they
// are only noted.
func (l *folderLook) pathFindings() (found []Finding) {
	s, err := readSettings(l.check.Dir.settings())
	if err != nil {
		return nil
	}
	milter := ""
	if network, address, err := milterAddress(s.Milter); err == nil && network == "unix" {
		milter = address
	}
	for _, f := range []struct{ key, path string }{{"tls_cert", s.TLSCert}, {"tls_key", s.TLSKey}, {"acme_root", s.ACMERoot}, {"milter", milter}} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); errors.Is(err, fs.ErrNotExist) {
			found = append(found, Finding{Name: "paths", Subject: f.key, State: l.check.elsewhere(StateWarn, thisSystem()),
				Sentence: fmt.Sprintf("settings.toml names %s as %s, and that is not on this machine.", f.path, f.key),
				Do:       "Put it there, or name the new place; without the line the appliance does without it."})
		}
	}
	return found
}

// queueFindings looks whether what waits can be sent.
func (l *folderLook) queueFindings() []Finding {
	files := &queueFiles{dir: l.check.Dir.queue(), log: slog.New(slog.DiscardHandler)}
	names, err := listNames(files.dir)
	if err != nil { // none, or said already
		return single("queue", "", StateOK, "Nothing waits to be sent.", "")
	}
	records, texts := map[string]bool{}, map[string]bool{}
	var damaged, aside trouble
	for _, name := range names {
		if id, ok := strings.CutSuffix(name, queueState); ok {
			records[id] = true
		} else if id, ok := strings.CutSuffix(name, queueMessage); ok {
			texts[id] = true
		} else if strings.HasSuffix(name, ".damaged") {
			aside.add("queue/" + name)
		}
	}
	for _, id := range keysInOrder(records) {
		if !texts[id] {
			damaged.add("queue/" + id + queueState + " has no message beside it")
		} else if _, err := files.loadOne(id); errors.Is(err, errDamaged) {
			damaged.add("queue/" + id + queueState + ": " + oneLineText(err.Error()))
		}
	}
	var alone trouble
	for _, id := range keysInOrder(texts) {
		if !records[id] {
			alone.add("queue/" + id + queueMessage)
		}
	}
	return judgeQueue(len(records), &damaged, &alone, &aside)
}

func judgeQueue(waiting int, damaged, alone, aside *trouble) []Finding {
	found := single("queue", "", StateOK, fmt.Sprintf("Messages that wait to be sent: %d.", waiting), "")
	if damaged.count > 0 {
		found = append(found, Finding{Name: "queue", State: StateBad, Sentence: "Messages cannot be sent, for their records are damaged: " + damaged.words("record", "records") + ".",
			Do: "Put both files of each back from a backup; else the appliance sets them aside at its next start and tells the owner."})
	}
	if alone.count > 0 {
		found = append(found, Finding{Name: "queue", State: StateWarn, Sentence: "Messages have no record beside them: " + alone.words("message", "messages") + ".",
			Do: "If the folder is a copy, copy queue anew while the appliance is stopped. On the machine itself nothing need be done: nobody was told that they would be sent, and the next start removes them."})
	}
	if aside.count > 0 {
		found = append(found, Finding{Name: "queue", State: StateWarn, Sentence: "Damaged messages were set aside earlier: " + aside.words("file", "files") + ".",
			Do: "Look whether their texts are to be sent again, and delete them then."})
	}
	return found
}
