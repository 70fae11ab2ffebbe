package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// A data folder goes from Linux to Windows and back. TestCarry runs both sides here and lets the copy suffer what copies
// suffer; TestCarryWindows runs the program for Windows on the copy, in .ci/wine.sh.

const (
	// carryVariable is a command that runs programs for Windows, carryProgram the appliance for Windows.
	carryVariable = "APPLIANCE_TEST_WINE"
	carryProgram  = "APPLIANCE_TEST_WINDOWS_PROGRAM"
)

// carriedFolders are names that some system, script or encoding is known to spoil.
var carriedFolders = []string{
	"CON", "aux.txt", "NUL", "com1", "LPT9.old", "PRN/AUX", "trailing.", "trailing..", "dots...in.it", ".hidden", "..",
	"a:b", "a;2,S", `back\slash`, `all of them: *?<>|"`, "per%cent%3A", "&", "&-", "&AOQ-", "a & b", "~", "tilde~1", "$MFT", "desktop.ini",
	" blank before", "blank after ", "INBOX/below", "Work/2026/November", "work in small letters", "'quoted'", "{brace} (round) [square]", "@home #1 ^ ` ! = +,",
	"Grüße", "ß", "e\u0301 is not \u00e9", "\u00e9", "Ελληνικά", "кириллица", "Ђурђевак", "עברית", "العربية", "हिन्दी", "বাংলা", "தமிழ்", "ไทย", "ქართული", "հայերեն", "አማርኛ",
	"日本語", "中文/子文件夾", "한국어", "🎉📬", "👩\u200d👧\u200d👦", "\u202eright to left", "a\u200db", "\ufb01 ligature", "İstanbul", "ı", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "\u00a0", "\u3000",
	strings.Repeat("very long ", 23) + "name", strings.Repeat("長", 80),
}

// carriedKeywords are more than there are letters for.
func carriedKeywords() []imap.Flag {
	flags := []imap.Flag{"$Forwarded", "$label1", "NonJunk", "colon:and;semicolon", "2,S", "a/b", "~!@#$^&_=+|'<>?,.`}"}
	for i := range 30 {
		flags = append(flags, imap.Flag("word"+strconv.Itoa(i)))
	}
	return flags
}

// carriedServer is an appliance that has the folder at the moment.
type carriedServer struct {
	address string // of IMAP with TLS
	stop    func()
}

func carryHere(t *testing.T, data string) carriedServer {
	r := startRun(t, data)
	return carriedServer{fmt.Sprintf("127.0.0.1:%d", 993+r.offset), func() { r.stop(t) }}
}

func (s carriedServer) client(t *testing.T) *imapclient.Client {
	t.Helper()
	c, err := imapclient.DialTLS(s.address, &imapclient.Options{TLSConfig: &tls.Config{InsecureSkipVerify: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Login("maria", carryPassword).Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

const carryPassword = "carried-7-times"

// carriedMessage puts a message into a folder.
func carriedMessage(t *testing.T, c *imapclient.Client, folder string, n int, flags []imap.Flag) {
	t.Helper()
	text := fmt.Sprintf("From: maria@home.lan\r\nSubject: %d in %s\r\n\r\n%s\r\n", n, "a folder", strings.Repeat("x", n))
	cmd := c.Append(folder, int64(len(text)), &imap.AppendOptions{Flags: flags, Time: time.Unix(1_700_000_000+int64(n)*86399, 0)})
	if _, err := cmd.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.Wait(); err != nil {
		t.Fatalf("%q: %v", folder, err)
	}
}

// carriedWorld makes folders, messages, flags, keywords, subscriptions, annotations and rights. Some UIDs have gone.
func carriedWorld(t *testing.T, c *imapclient.Client) {
	t.Helper()
	for i, name := range carriedFolders {
		if err := c.Create(name, nil).Wait(); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if i%2 == 0 {
			if err := c.Subscribe(name).Wait(); err != nil {
				t.Fatalf("%q: %v", name, err)
			}
		}
		for n := range 3 {
			carriedMessage(t, c, name, i+n, []imap.Flag{[]imap.Flag{imap.FlagSeen, imap.FlagFlagged, imap.FlagAnswered}[n], carriedKeywords()[i%37]})
		}
		if err := c.SetMetadata(name, map[string]*[]byte{"/private/comment": ptrTo([]byte("of " + name + "\r\nsecond\tline\r"))}).Wait(); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	for i, flag := range carriedKeywords() {
		carriedMessage(t, c, "INBOX", i, []imap.Flag{flag, imap.FlagSeen})
	}
	carriedMessage(t, c, "INBOX", 99, append(carriedKeywords(), imap.FlagDraft, imap.FlagDeleted))
	carriedChanges(t, c)
}

// carriedChanges flags and removes here and there, so that names and lists of UIDs change.
func carriedChanges(t *testing.T, c *imapclient.Client) {
	t.Helper()
	for i, name := range append([]string{"INBOX"}, carriedFolders...) {
		if _, err := c.Select(name, nil).Wait(); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		store := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}, Silent: true}
		if err := c.Store(imap.SeqSetNum(1), store, nil).Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.Expunge().Close(); err != nil {
			t.Fatal(err)
		}
		store = &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDraft, carriedKeywords()[(i+5)%37]}, Silent: true}
		if err := c.Store(imap.SeqSetNum(1), store, nil).Close(); err != nil {
			t.Fatal(err)
		}
		carriedMessage(t, c, name, 50+i, []imap.Flag{imap.FlagSeen, carriedKeywords()[(i+30)%37]})
	}
}

func ptrTo[T any](v T) *T { return &v }

// carriedState is everything that a mail program can see.
func carriedState(t *testing.T, c *imapclient.Client) string {
	t.Helper()
	var out strings.Builder
	out.WriteString(folderStates(t, c))
	list, err := c.List("", "*", &imap.ListOptions{ReturnSubscribed: true, ReturnSpecialUse: true}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		slices.Sort(l.Attrs)
		fmt.Fprintf(&out, "%q %v\n", l.Mailbox, l.Attrs)
		if slices.Contains(l.Attrs, imap.MailboxAttrNonExistent) {
			continue
		}
		all, err := c.Select(l.Mailbox, &imap.SelectOptions{ReadOnly: true}).Wait()
		if err != nil {
			t.Fatalf("%q: %v", l.Mailbox, err)
		}
		if all.NumMessages == 0 {
			continue
		}
		bodies, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}}).Collect()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range bodies {
			fmt.Fprintf(&out, "%d %x\n", m.UID, sha256.Sum256(m.BodySection[0].Bytes))
		}
		meta, err := c.GetMetadata(l.Mailbox, []string{"/private/comment"}, nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		if value := meta.Entries["/private/comment"]; value != nil {
			fmt.Fprintf(&out, "comment %q\n", *value)
		}
	}
	return out.String()
}

// sameState says where two states differ first.
func sameState(t *testing.T, when, got, want string) {
	t.Helper()
	have, wanted := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(have), len(wanted)) {
		line := func(list []string) string {
			if i < len(list) {
				return list[i]
			}
			return "nothing more"
		}
		if line(have) != line(wanted) {
			t.Fatalf("%s: line %d is\n%s\nand was\n%s", when, i, line(have), line(wanted))
		}
	}
}

// copyFolder copies as programs do between systems: dates are kept, modes and owners are not. The cache stays behind. change
// may give a file another text, or "" for none; nil leaves all as it is.
func copyFolder(t *testing.T, from, to string, change func(below string, text []byte) []byte) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel(from, path)
		switch {
		case below == "index":
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, below), 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if change != nil {
			text = change(below, text)
		}
		if err := os.WriteFile(filepath.Join(to, below), text, 0o644); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chtimes(filepath.Join(to, below), time.Time{}, info.ModTime())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// windowsLines gives files of text the line ends of Windows.
func windowsLines(below string, text []byte) []byte {
	switch filepath.Base(below) {
	case "settings.toml", "accounts.toml", uidlistName, keywordsName, moreKeywordsName, subscriptionsName, attributesName, flagJournalName, aclName, "ca.pem", "server.pem", "ca.key":
		return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	}
	return text
}

// namesIn gives all names in a folder but those of the cache.
func namesIn(t *testing.T, data string) (names []string) {
	t.Helper()
	if err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == filepath.Join(data, "index") {
			return filepath.SkipDir
		}
		if path != data {
			names = append(names, path)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

// with counts messages whose names have a character.
func with(names []string, char string) (n int) {
	for _, name := range names {
		if strings.Contains(filepath.Base(name), char) && filepath.Base(filepath.Dir(name)) == "cur" {
			n++
		}
	}
	return n
}

// carriedData is a folder that has been in use, and what is seen in it.
func carriedData(t *testing.T) (data, state string) {
	t.Helper()
	data = t.TempDir()
	if err := os.WriteFile(dataDir(data).settings(), []byte("domain = 'home.lan'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := runCommand(t, data, carryPassword+"\n", "user", "add", "maria", "--password-stdin"); status != exitDone {
		t.Fatal(errs)
	}
	if err := os.Chmod(data, 0o700); err != nil {
		t.Fatal(err)
	}
	server := carryHere(t, data)
	c := server.client(t)
	carriedWorld(t, c)
	state = carriedState(t, c)
	c.Close()
	server.stop()
	return data, state
}

// readyForWindows makes a folder ready and looks whether it is.
func readyForWindows(t *testing.T, data string) {
	t.Helper()
	if status, out, errs := runCommand(t, data, "", "check", "--for", "windows"); status != exitFailed || !strings.Contains(out, "separators") {
		t.Errorf("check before: %d %s %s", status, out, errs)
	}
	mustRun(t, data, "carry", "windows")
	if out := mustRun(t, data, "check", "--for", "windows"); !strings.Contains(out, "semicolons") && thisSystem() != systemWindows && strings.Contains(out, "colons") {
		t.Errorf("check after: %s", out)
	}
	spelled := map[string]string{}
	for _, path := range namesIn(t, data) {
		if why := windowsNameTrouble(filepath.Base(path)); why != "" {
			t.Errorf("%s: %s", path, why)
		}
		if other := spelled[strings.ToLower(path)]; other != "" {
			t.Errorf("%s and %s are one on Windows", path, other)
		}
		spelled[strings.ToLower(path)] = path
	}
}

// TestCarry takes a folder there and back. On the way it loses its modes, its cache and its empty folders' dates, and its files
// of text get the line ends of Windows.
func TestCarry(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	data, state := carriedData(t)
	readyForWindows(t, data)
	there := filepath.Join(t.TempDir(), "there")
	copyFolder(t, data, there, windowsLines)
	server := carryHere(t, there)
	c := server.client(t)
	sameState(t, "there", carriedState(t, c), state)
	carriedChanges(t, c)
	state = carriedState(t, c)
	c.Close()
	server.stop()
	if n := with(namesIn(t, there), ":"); thisSystem() != systemWindows && n == 0 {
		t.Error("no flag was written here in the way of this system")
	}

	back := filepath.Join(t.TempDir(), "back")
	copyFolder(t, there, back, nil)
	mustRun(t, back, "carry", "unix")
	if n := with(namesIn(t, back), ";"); n > 0 {
		t.Errorf("%d names have a semicolon still", n)
	}
	server = carryHere(t, back)
	c = server.client(t)
	sameState(t, "back", carriedState(t, c), state)
	c.Close()
	server.stop()
}

// TestCarryWindows runs the program for Windows on the folder.
func TestCarryWindows(t *testing.T) {
	wine, program := os.Getenv(carryVariable), os.Getenv(carryProgram)
	if wine == "" || program == "" {
		t.Skip("there is nothing to run programs for Windows: " + carryVariable + " and " + carryProgram + " are not set")
	}
	data, state := carriedData(t)
	readyForWindows(t, data)
	there := filepath.Join(t.TempDir(), "there")
	copyFolder(t, data, there, windowsLines)
	for round, when := range []string{"on Windows", "on Windows after it was killed"} {
		server := carryUnderWine(t, wine, program, there)
		c := server.client(t)
		sameState(t, when, carriedState(t, c), state)
		if round == 0 {
			carriedChanges(t, c)
			state = carriedState(t, c)
		}
		c.Close()
		server.stop()
	}
	names := namesIn(t, there)
	if with(names, ":") > 0 || with(names, ";") == 0 {
		t.Errorf("%d names with a colon, %d with a semicolon", with(names, ":"), with(names, ";"))
	}

	back := filepath.Join(t.TempDir(), "back")
	copyFolder(t, there, back, nil)
	for _, carry := range []bool{false, true} { // names as on Windows are read as well
		if carry {
			mustRun(t, back, "carry", "unix")
		}
		server := carryHere(t, back)
		c := server.client(t)
		sameState(t, "back", carriedState(t, c), state)
		c.Close()
		server.stop()
	}
	t.Logf("%d folders, %d lines of state were the same there and back", len(carriedFolders), strings.Count(state, "\n"))
}

// carryUnderWine starts the program for Windows. Its end is sudden.
func carryUnderWine(t *testing.T, wine, program, data string) carriedServer {
	t.Helper()
	offset := freeOffset(t)
	var said lockedBuffer
	cmd := exec.Command(wine, program, "run", "--data", "Z:"+strings.ReplaceAll(data, "/", `\`), "--listen", "127.0.0.1", "--port-offset", strconv.Itoa(offset))
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	t.Cleanup(stop)
	address := fmt.Sprintf("127.0.0.1:%d", 993+offset)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}); err == nil {
			conn.Close()
			return carriedServer{address, stop}
		}
		select {
		case err := <-ended:
			stopped = true
			t.Fatalf("it ended: %v\n%s", err, said.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("it does not answer:\n%s", said.String())
		}
	}
}
