//go:build !windows

package main

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ownerLook gathers whom the files belong to and who may read them.
type ownerLook struct {
	uid, gid        uint32 // of the folder
	known           bool
	strange, closed trouble // another owner's; such that their owner may not use
	open            trouble // secrets that others may read
	doors           trouble // the folder itself
}

// at takes one entry in. The folder itself comes first.
func (o *ownerLook) at(dir dataDir, path, below string, info fs.FileInfo) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if !o.known {
			o.uid, o.gid, o.known = st.Uid, st.Gid, true
		}
		if st.Uid != o.uid {
			o.strange.add(below)
		}
	}
	need := fs.FileMode(0o600)
	if info.IsDir() {
		need = 0o700
	}
	mode := info.Mode().Perm()
	if mode&need != need {
		o.closed.add(below)
	}
	if mode&0o077 == 0 {
		return
	}
	if path == string(dir) {
		o.doors.add(below)
	} else if !info.IsDir() && dir.isSecret(path) {
		o.open.add(below)
	}
}

// ownerFindings says what is wrong with owners and modes.
func (l *folderLook) ownerFindings() []Finding {
	o, dir := &l.owners, l.check.Dir
	var found []Finding
	if o.strange.count > 0 {
		found = append(found, Finding{Name: "owner", State: StateBad, Sentence: "Not all belongs to the owner of the folder: " + o.strange.words("other", "others") + ".",
			Do: fmt.Sprintf("sudo chown -R %d:%d %s", o.uid, o.gid, dir)})
	}
	if o.closed.count > 0 {
		found = append(found, Finding{Name: "modes", State: StateBad, Sentence: "The owner may not read and write all: " + o.closed.words("entry", "entries") + ".",
			Do: fmt.Sprintf("chmod -R u+rwX %s", dir)})
	}
	if o.open.count > 0 {
		found = append(found, Finding{Name: "secrets", State: StateBad, Sentence: "Others on this machine may read secrets: " + o.open.words("file", "files") + ".",
			Do: fmt.Sprintf("chmod -R go= %s", dir)})
	} else if o.doors.count > 0 {
		found = append(found, Finding{Name: "secrets", State: StateWarn, Sentence: "Others on this machine may look into the folder.",
			Do: fmt.Sprintf("chmod go= %s", dir)})
	}
	if len(found) == 0 {
		found = single("owner", "", StateOK, "All belongs to one owner, and the secrets to nobody else.", "")
	}
	return found
}

// unreadableDo says what helps where files cannot be read.
func unreadableDo(dir string) string {
	if os.Geteuid() != 0 {
		return "Run the check as the owner of the folder, or with sudo; if the appliance is to run as you: sudo chown -R $(id -u):$(id -g) " + dir
	}
	return "Look whether the disk is sound: the system itself cannot read them."
}
