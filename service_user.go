//go:build !windows

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"
)

// makeUser makes a user that nobody can log in as, with a group of its own, if there is none of that name.
func makeUser(name, home string) (made bool, err error) {
	if _, err := user.Lookup(name); err == nil {
		return false, nil
	}
	for _, way := range userWays(name, home) {
		if _, err := exec.LookPath(way.tool); err != nil {
			continue
		}
		return true, runAll(fmt.Sprintf("making the user %s", name), way.make)
	}
	return true, addUserLines(name, home)
}

// removeUser removes a user that makeUser has made.
func removeUser(name string) error {
	for _, way := range userWays(name, "") {
		if _, err := exec.LookPath(way.tool); err != nil {
			continue
		}
		return runAll(fmt.Sprintf("removing the user %s", name), way.remove)
	}
	return removeUserLines(name)
}

// userWay is how a system makes and removes users.
type userWay struct {
	tool         string // is there where this way is
	make, remove [][]string
}

func userWays(name, home string) []userWay {
	return []userWay{
		{ // nearly all of Linux
			tool: "useradd",
			make: [][]string{{"useradd", "--system", "--user-group", "--no-create-home", "--home-dir", home,
				"--shell", noLogin(), "--comment", serviceTitle, name}},
			remove: [][]string{{"userdel", name}},
		},
		{ // Busybox, as Alpine has it
			tool: "adduser",
			make: [][]string{{"addgroup", "-S", name},
				{"adduser", "-S", "-D", "-H", "-h", home, "-s", noLogin(), "-G", name, "-g", serviceTitle, name}},
			remove: [][]string{{"deluser", name}, {"sh", "-c", "! grep -q '^" + name + ":' /etc/group || delgroup " + name}},
		},
		{ // macOS
			tool: "dscl",
			make: [][]string{{"sh", "-ec", `id=450; while dscl . -list /Users UniqueID | awk '{print $2}' | grep -qx "$id" || dscl . -list /Groups PrimaryGroupID | awk '{print $2}' | grep -qx "$id"; do id=$((id + 1)); done
dscl . -create "/Groups/$0" PrimaryGroupID "$id"
dscl . -create "/Users/$0" UniqueID "$id"
dscl . -create "/Users/$0" PrimaryGroupID "$id"
dscl . -create "/Users/$0" UserShell /usr/bin/false
dscl . -create "/Users/$0" NFSHomeDirectory "$1"
dscl . -create "/Users/$0" RealName "$2"
dscl . -create "/Users/$0" IsHidden 1`, name, home, serviceTitle}},
			remove: [][]string{{"dscl", ".", "-delete", "/Users/" + name}, {"dscl", ".", "-delete", "/Groups/" + name}},
		},
	}
}

// noLogin is the shell of a user that cannot log in.
func noLogin() string {
	for _, shell := range []string{"/usr/sbin/nologin", "/sbin/nologin"} {
		if isThere(shell) {
			return shell
		}
	}
	return "/bin/false"
}

func runAll(doing string, commands [][]string) error {
	for _, words := range commands {
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", doing, err, strings.Join(strings.Fields(string(out)), " "))
		}
	}
	return nil
}

// Systems such as OpenWrt have no command for it.
const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
	shadowFile = "/etc/shadow"
)

// addUserLines writes a user with a group of its own into the files that hold them.
func addUserLines(name, home string) error {
	id := freeID()
	for _, line := range []struct{ file, text string }{
		{groupFile, fmt.Sprintf("%s:x:%d:", name, id)},
		{passwdFile, fmt.Sprintf("%s:x:%d:%d:%s:%s:%s", name, id, id, serviceTitle, home, noLogin())},
		{shadowFile, fmt.Sprintf("%s:!:0:0:99999:7:::", name)},
	} {
		if !isThere(line.file) {
			continue
		}
		err := changeLines(line.file, func(lines [][]byte) [][]byte { return append(lines, []byte(line.text)) })
		if err != nil {
			return fmt.Errorf("making the user %s: %w", name, err)
		}
	}
	return nil
}

// freeID gives a number that neither a user nor a group has, as system users have them.
func freeID() int {
	for id := 450; ; id++ {
		_, noUser := user.LookupId(fmt.Sprint(id))
		_, noGroup := user.LookupGroupId(fmt.Sprint(id))
		if noUser != nil && noGroup != nil {
			return id
		}
	}
}

// removeUserLines takes a user out of the files.
func removeUserLines(name string) error {
	for _, file := range []string{passwdFile, shadowFile, groupFile} {
		if !isThere(file) {
			continue
		}
		err := changeLines(file, func(lines [][]byte) (kept [][]byte) {
			for _, line := range lines {
				if !bytes.HasPrefix(line, []byte(name+":")) {
					kept = append(kept, line)
				}
			}
			return kept
		})
		if err != nil {
			return fmt.Errorf("removing the user %s: %w", name, err)
		}
	}
	return nil
}

// changeLines replaces a file of lines by a new one with the same mode.
func changeLines(file string, change func([][]byte) [][]byte) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	tmp := file + ".appliance"
	if err := os.WriteFile(tmp, append(bytes.Join(change(lines), []byte("\n")), '\n'), info.Mode().Perm()); err != nil {
		return err
	}
	err = os.Chmod(tmp, info.Mode().Perm())
	if err == nil {
		err = os.Rename(tmp, file)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}
