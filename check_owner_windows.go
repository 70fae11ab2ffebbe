package main

import "io/fs"

// ownerLook has nothing to gather: on Windows the folder's own list says who may read what is in it, which the appliance sets
// when it makes the folder.
type ownerLook struct{}

func (*ownerLook) at(dataDir, string, string, fs.FileInfo) {}

func (l *folderLook) ownerFindings() []Finding { return nil }

// unreadableDo says what helps where files cannot be read.
func unreadableDo(dir string) string {
	return `Run the check as administrator, or give the right: icacls "` + dir + `" /grant %USERNAME%:F /T`
}
