package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// checkedData is a data folder in which nothing is wrong.
func checkedData(t *testing.T) dataDir {
	t.Helper()
	data := dataDir(homeData(t))
	maria := filepath.Join(data.mail(), "home.lan", "maria")
	put(t, data.relays(), "[[relay]]\nhost = 'smtp.example.org'\nport = 465\ntls = 'implicit'\nuser = 'm'\npassword = 'p'\n")
	put(t, filepath.Join(maria, "cur", "1700000001.M1P1Q1.h,S=5,W=5"+string(infoSeparator())+"2,S"), "a: b\n")
	put(t, filepath.Join(maria, "new", "1700000002.M1P1Q2.h,S=5,W=5"), "a: b\n")
	put(t, filepath.Join(maria, "tmp", "x"), "")
	put(t, filepath.Join(maria, ".Work", "cur", "1700000003.M1P1Q3.h,S=5,W=5"), "a: b\n")
	put(t, filepath.Join(maria, ".Work", "new", ".keep"), "")
	put(t, filepath.Join(maria, ".Work", "tmp", ".keep"), "")
	put(t, filepath.Join(maria, uidlistName), "3 V1 N0000000009 G1 M0000000000000000001\n1 S5 W5 :1700000001.M1P1Q1.h,S=5,W=5\n")
	put(t, filepath.Join(maria, keywordsName), "0 $Forwarded\n")
	put(t, filepath.Join(data.queue(), "a1.json"), `{"envelope":{"from":"maria@home.lan","recipients":[{"address":"x@example.org"}]},"states":[{}]}`)
	put(t, filepath.Join(data.queue(), "a1.eml"), "a: b\r\n\r\n")
	if err := os.Chmod(string(data), 0o700); err != nil {
		t.Fatal(err)
	}
	return data
}

// put writes a file and makes its folders.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// treeOf describes all files.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&all, path, info.Mode(), info.Size(), info.ModTime())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestCheckNothingWrong checks a folder that is as it should be, by both outputs, and changes nothing in it.
func TestCheckNothingWrong(t *testing.T) {
	data := checkedData(t)
	before := treeOf(t, string(data))
	out := mustRun(t, string(data), "check")
	if !strings.Contains(out, "There are 3 messages in 7 folders of 1 mailboxes.") || !strings.Contains(out, "Nothing is wrong.") {
		t.Error(out)
	}
	var found []Finding
	if err := json.Unmarshal([]byte(mustRun(t, string(data), "check", "--json")), &found); err != nil || len(found) < 6 {
		t.Errorf("%v: %+v", err, found)
	}
	for _, f := range found {
		if f.State != StateOK && f.State != StateNote {
			t.Errorf("%+v", f)
		}
	}
	if after := treeOf(t, string(data)); after != before {
		t.Errorf("the check has changed something:\n%s\n%s", before, after)
	}
}

// TestCheckFinds breaks one thing at a time.
func TestCheckFinds(t *testing.T) {
	const maria = "mail/home.lan/maria/"
	write := func(name, text string) func(t *testing.T, in func(string) string) {
		return func(t *testing.T, in func(string) string) { put(t, in(name), text) }
	}
	folder := func(dir string) func(t *testing.T, in func(string) string) {
		return func(t *testing.T, in func(string) string) {
			if err := makeMaildir(in(maria + dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	unix := runtime.GOOS != "windows"
	for _, c := range []struct {
		what  string
		spoil func(t *testing.T, in func(string) string)
		flags string
		name  string
		state FindingState
		says  string
		skip  bool
	}{
		{"settings", write("settings.toml", "domain = 'home.lan'\nmax_message_mb = 'x'\n"), "", "text settings.toml", StateBad, "line 2", false},
		{"accounts", write("accounts.toml", "[[user]]\naddress = 'no address'\n"), "", "text accounts.toml", StateBad, "line 2: address", false},
		{"no accounts", func(t *testing.T, in func(string) string) { _ = os.Remove(in("accounts.toml")) }, "", "text accounts.toml", StateBad, "missing", false},
		{"relays", write("relays.toml", "[[relay]]\nhost = 'h'\nport = 0\n"), "", "text relays.toml", StateBad, "port", false},
		{"collect", write("collect.toml", "nothing\n"), "", "text collect.toml", StateBad, "collect.toml line 1", false},
		{"paths", write("settings.toml", "domain = 'home.lan'\ntls_cert = '/nowhere/x.pem'\ntls_key = '/nowhere/k.pem'\n"), "", "paths tls_cert", StateWarn, "/nowhere/x.pem", false},
		{"paths of another system", write("settings.toml", "domain = 'home.lan'\nmilter = 'unix:/nowhere/milter'\n"), "--for macos", "paths milter", StateNote, "/nowhere/milter", runtime.GOOS == "darwin"},
		{"UID list, a line", write(maria+uidlistName, "3 V1 N9 G1\n1 :a\nx :b\n"), "", "uids", StateWarn, "dovecot-uidlist: line 3", false},
		{"UID list, its head", write(maria+".Work/"+uidlistName, "garbage\n"), "", "uids", StateWarn, ".Work/dovecot-uidlist: first line", false},
		{"keywords", write(maria+keywordsName, "0 a\n77 b\n"), "", "keywords", StateWarn, "dovecot-keywords: 1 lines make no sense", false},
		{"more keywords", write(maria+moreKeywordsName, "no base\n"), "", "keywords", StateWarn, "make no sense", false},
		{"annotations", write(maria+attributesName, "key alone\n"), "", "files", StateWarn, "dovecot-attributes", false},
		{"rights", write(maria+".Work/"+aclName, "user=a (\n"), "", "files", StateWarn, "dovecot-acl: line 1", false},
		{"pending flags", write(maria+flagJournalName, "V1 +(\\Seen) 1 00000000\n"), "", "files", StateWarn, flagJournalName, false},
		{"half a folder", func(t *testing.T, in func(string) string) { _ = os.RemoveAll(in(maria + ".Work/tmp")) }, "", "folders", StateWarn, ".Work has no tmp", false},
		{"queue, a record", write("queue/a1.json", "{"), "", "queue", StateBad, "queue/a1.json", false},
		{"queue, no message", func(t *testing.T, in func(string) string) { _ = os.Remove(in("queue/a1.eml")) }, "", "queue", StateBad, "a1.json has no message", false},
		{"queue, no record", write("queue/b2.eml", "a: b\r\n\r\n"), "", "queue", StateWarn, "queue/b2.eml", false},
		{"queue, set aside", write("queue/c3.json.damaged", "{"), "", "queue", StateWarn, "set aside", false},
		{"another's lock", write(maria+uidlistLockName, "1:a-machine-elsewhere"), "", "locks", StateWarn, uidlistLockName, false},
		{"semicolons", write(maria+"cur/1700000009.M1.h,S=5,W=5;2,F", "a: b\n"), "--for linux", "separators", StateNote, "semicolons", false},
		{"changed names", write(maria+"cur/1700000009.M1.h,S=5,W=5_2,FS", "a: b\n"), "", "separators", StateBad, "5_2,FS", false},
		{"changed names of Samba", write(maria+"cur/1700000009.M1.h,S=5,W=5\uf03a2,", "a: b\n"), "", "separators", StateBad, "1 message", false},
		{"colons, elsewhere", write(maria+".Work/cur/1700000009.M1.h:2,F", "a: b\n"), "--for linux", "separators", StateNote, "2 messages", !unix},
		{"colons, there", write(maria+".Work/cur/1700000009.M1.h:2,F", "a: b\n"), "--for windows", "separators", StateBad, "2 messages", !unix},
		{"characters", folder(".a?b"), "--for windows", "windows", StateBad, ".a?b: '?'", !unix},
		{"characters, elsewhere", folder(".a?b"), "", "windows", StateNote, ".a?b: '?'", !unix},
		{"an end", write("tls/acme/x./f", "x"), "--for windows", "windows", StateBad, "tls/acme/x.", !unix},
		{"a device", write("tls/acme/aux.d/f", "x"), "--for windows", "windows", StateBad, "aux.d", !unix},
		{"capitals", folder(".WORK"), "--for macos", "capitals", StateBad, ".WORK and mail/home.lan/maria/.Work", !unix || runtime.GOOS == "darwin"},
		{"letters that are capitals of others", func(t *testing.T, in func(string) string) {
			for _, name := range []string{"ä", "棤"} {
				dir, err := encodeFolder(name)
				if err != nil {
					t.Fatal(err)
				}
				folder(dir)(t, in)
			}
		}, "--for windows", "capitals", StateBad, "&AOQ-", !unix || runtime.GOOS == "darwin"},
		{"secrets", func(t *testing.T, in func(string) string) { _ = os.Chmod(in("accounts.toml"), 0o640) }, "", "secrets", StateBad, "accounts.toml", !unix},
		{"the door", func(t *testing.T, in func(string) string) { _ = os.Chmod(in("."), 0o750) }, "", "secrets", StateWarn, "look into", !unix},
		{"modes", func(t *testing.T, in func(string) string) { _ = os.Chmod(in(maria+".Work/new"), 0o500) }, "", "modes", StateBad, ".Work/new", !unix},
		{"owner", func(t *testing.T, in func(string) string) {
			if err := os.Lchown(in("scram.key"), 12345, -1); err != nil {
				t.Skip("only root can give files away")
			}
		}, "", "owner", StateBad, "scram.key", !unix},
		{"links", func(t *testing.T, in func(string) string) {
			if err := os.Symlink(t.TempDir(), in(maria+".Far")); err != nil {
				t.Skip(err)
			}
		}, "", "links", StateWarn, ".Far", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			if c.skip {
				t.Skip("not on this system")
			}
			data := checkedData(t)
			c.spoil(t, func(name string) string { return filepath.Join(string(data), filepath.FromSlash(name)) })
			status, out, errs := runCommand(t, string(data), "", append([]string{"check", "--json"}, strings.Fields(c.flags)...)...)
			var found []Finding
			if err := json.Unmarshal([]byte(out), &found); err != nil {
				t.Fatalf("%v: %q %q", err, out, errs)
			}
			hit := false
			for _, f := range found {
				if strings.TrimSpace(f.Name+" "+f.Subject) == c.name && f.State == c.state && strings.Contains(f.Sentence, c.says) {
					hit = f.Do != ""
				}
			}
			if !hit {
				t.Errorf("no finding %s, %s, with %q and what to do:\n%s", c.name, c.state, c.says, out)
			}
			if want := c.state != StateNote; (status == exitFailed) != want || want != strings.Contains(errs, "something needs doing: ") {
				t.Errorf("exit status %d, %q", status, errs)
			}
		})
	}
}

// TestCheckWantsAFolder looks at the sentences where there is nothing to check.
func TestCheckWantsAFolder(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), "x")
	for data, want := range map[string]string{filepath.Join(dir, "none"): "there is no data folder", filepath.Join(dir, "file"): "is a file", dir: "is no data folder"} {
		for _, command := range [][]string{{"check"}, {"carry", "unix"}} {
			if status, _, errs := runCommand(t, data, "", command...); status != exitFailed || !strings.Contains(errs, want) {
				t.Errorf("%v %s: %d %q", command, data, status, errs)
			}
		}
	}
	if status, _, errs := runCommand(t, dir, "", "check", "--for", "amiga"); status != exitUsage || !strings.Contains(errs, "linux, macos, windows") {
		t.Errorf("%d %q", status, errs)
	}
	if status, _, errs := runCommand(t, dir, "", "carry", "amiga"); status != exitUsage || !strings.Contains(errs, "windows or unix") {
		t.Errorf("%d %q", status, errs)
	}
}

// TestCheckWhileRunning says so, and carry refuses.
func TestCheckWhileRunning(t *testing.T) {
	data := homeData(t)
	startRun(t, data)
	status, out, _ := runCommand(t, data, "", "check")
	if !strings.Contains(out, "runs with this folder") || status == exitUsage {
		t.Errorf("%d %s", status, out)
	}
	if status, _, errs := runCommand(t, data, "", "carry", "windows"); status != exitFailed || !strings.Contains(errs, "stop it first") {
		t.Errorf("%d %q", status, errs)
	}
}

// TestCarryNames renames what other programs have left behind.
func TestCarryNames(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("names that Windows cannot hold are made first")
	}
	data := checkedData(t)
	in := func(name string) string { return filepath.Join(string(data), "mail/home.lan/maria", name) }
	const base = "1700000009.M1.h,S=5,W=5"
	put(t, in("cur/"+base+"_2,FS"), "a: b\n")
	put(t, in(".a:b?/cur/"+base+":2,S"), "a: b\n")
	put(t, in(".a:b?/new/.keep"), "")
	put(t, in(".a:b?/tmp/.keep"), "")
	put(t, in(".Work/cur/what?.h:2,S"), "a: b\n")
	put(t, in(".Work/cur/"+base+":2,S"), "a: b\n")
	put(t, in(".Work/cur/"+base+";2,S"), "another\n")
	status, out, errs := runCommand(t, string(data), "", "carry", "windows")
	// Of the three in .Work one is renamed, one would go onto another, and one has a character in the part that is kept.
	if status != exitFailed || !strings.Contains(errs, "2 names") || !strings.Contains(out, "5 names were changed") {
		t.Errorf("%d %q %q", status, out, errs)
	}
	for _, name := range []string{"cur/" + base + ";2,FS", ".a&ADo-b&AD8-/cur/" + base + ";2,S", ".Work/cur/" + base + ":2,S", ".Work/cur/" + base + ";2,S"} {
		if _, err := os.Stat(in(name)); err != nil {
			t.Error(err)
		}
	}
}
