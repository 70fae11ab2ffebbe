package main

import (
	"path/filepath"
)

// The keywords of a folder's messages for which file names have no letters (keywords_more.go). f.more has what the file
// says; a message has them besides those of its letters.

// loadKeywords reads dovecot-keywords; the bits of names past the letters are those of before.
func (f *Folder) loadKeywords(before []string) error {
	t, bad, err := loadKeywords(f.path)
	if err != nil {
		return err
	}
	if bad > 0 {
		f.drop.log.Warn("lines of the keyword list left out", "folder", f.dir, "lines", bad)
	}
	for i := maxFileKeywords; i < len(before); i++ {
		for len(t.names) <= i {
			t.names = append(t.names, "")
		}
		if bit := t.lookup(before[i]); bit >= 0 { // another program has given it a letter
			f.renumberKeyword(i, bit)
		} else {
			t.names[i] = before[i]
		}
	}
	f.keywords = t
	f.kwStamp = statStamp(filepath.Join(f.path, keywordsName))
	return nil
}

// renumberKeyword gives a keyword without letter another bit.
func (f *Folder) renumberKeyword(from, to int) {
	other := func(keywords uint64) uint64 {
		if keywords&(1<<from) != 0 {
			keywords = keywords&^(1<<from) | 1<<to
		}
		return keywords
	}
	for base, keywords := range f.more.of {
		f.more.of[base] = other(keywords)
	}
	for i := range f.msgs {
		f.msgs[i].Keywords = other(f.msgs[i].Keywords)
	}
	f.allDirty = true
}

// loadMore reads the file when the folder is loaded, after the names and before the messages. there is false when there is
// none.
func (f *Folder) loadMore() (there bool, err error) {
	more, bad, there, err := loadMoreKeywords(f.path, &f.keywords)
	if err != nil {
		return false, err
	}
	if bad > 0 {
		f.drop.log.Warn("keywords of messages left out", "folder", f.dir, "lines", bad)
	}
	f.more = more
	return there, nil
}

// takeMore gives the messages that the index knows the keywords that the file says, which may be later, and forgets those
// of messages that are gone. Without a file the index may have some of an earlier release.
func (f *Folder) takeMore(there bool) error {
	if len(f.keywords.names) <= maxFileKeywords {
		return nil
	}
	of := make(map[string]uint64, len(f.more.of))
	var idx []int
	for i := range f.msgs {
		m := &f.msgs[i]
		keywords := f.more.of[m.base]
		if !there {
			keywords = m.Keywords &^ letterKeywords
		}
		if keywords != 0 {
			of[m.base] = keywords
		}
		if m.Keywords&^letterKeywords != keywords&^letterKeywords || keywords&^m.Keywords != 0 {
			idx = append(idx, i)
		}
	}
	f.more.of = of
	if len(idx) == 0 {
		return nil
	}
	modseq, err := f.nextModSeq()
	if err != nil {
		return err
	}
	changed := f.uids[:0:0]
	for _, i := range idx {
		m := &f.msgs[i]
		m.Keywords, m.ModSeq = m.Keywords&letterKeywords|of[m.base], modseq
		changed = append(changed, m.UID)
	}
	f.noteFlags(modseq, changed)
	return nil
}

// moreOf gives what the file is to say of a message that is to have keywords: those without letters, and those that it says
// already.
func (f *Folder) moreOf(base string, keywords uint64) uint64 {
	return keywords & (^uint64(letterKeywords) | f.more.of[base])
}

// saveMore puts the keywords without letters that messages are to have on disk. It comes before the files get their names.
func (f *Folder) saveMore(n int, message func(i int) (base string, keywords uint64)) error {
	if len(f.keywords.names) <= maxFileKeywords && len(f.more.of) == 0 {
		return nil
	}
	var changes []moreChange
	for i := range n {
		base, keywords := message(i)
		if more := f.moreOf(base, keywords); more != f.more.of[base] {
			changes = append(changes, moreChange{base, more})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return diskError(f.more.save(f.path, f.keywords.names, changes))
}

// saveMoreNew is saveMore of one message that is new.
func (f *Folder) saveMoreNew(m *Msg) error {
	return f.saveMore(1, func(int) (string, uint64) { return m.base, m.Keywords })
}
