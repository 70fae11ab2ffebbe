package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// setQuota gives an account a quota: a size, "0K" for none, and a number of messages.
func setQuota(t testing.TB, accounts *Accounts, account string, limits ...string) {
	t.Helper()
	var bytes, messages int64
	if limits[0] != "0K" {
		var err error
		if bytes, err = parseSize(limits[0]); err != nil {
			t.Fatal(err)
		}
	}
	if len(limits) > 1 {
		messages, _ = strconv.ParseInt(limits[1], 10, 64)
	}
	if _, err := accounts.SetQuota(account, QuotaChange{&bytes, &messages}); err != nil {
		t.Fatal(err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"1K": 1 << 10, "500M": 500 << 20, "2G": 2 << 30, "1.5G": 3 << 29, "2gb": 2 << 30, "20 MiB": 20 << 20, " 1t ": 1 << 40,
		"0.5M": 1 << 19, "1.0001K": 1 << 10, "1024T": 1 << 50, "0512K": 512 << 10,
	} {
		got, err := parseSize(text)
		if err != nil || got != want {
			t.Errorf("%q is %d, %v, want %d", text, got, err, want)
		}
		if again, err := parseSize(formatSize(got)); err != nil || again != got {
			t.Errorf("%q is written as %s", text, formatSize(got))
		}
	}
	for _, text := range []string{"", "500", "M", "-1M", "0K", "0.1K", "1025T", "1e3M", "5X", "5MM", "1,5G", "5 M B", "iM", "9999999999999999G", "1.K", "١M", "5M\n5M"} {
		if got, err := parseSize(text); err == nil || strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for bytes, want := range map[int64]string{0: "0K", 1: "0.1K", 1 << 10: "1K", 1<<20 - 1: "1M", 12900000: "12.3M", 1 << 50: "1024T"} {
		if got := roundSize(bytes); got != want {
			t.Errorf("%d is %s, want %s", bytes, got, want)
		}
	}
}

// TestQuotaInAccountsFile looks at what stands in the file, as a person and as the appliance writes it.
func TestQuotaInAccountsFile(t *testing.T) {
	const before = "# people\n[[user]]\naddress = \"ann@x.lan\" # the boss\nquota = \"1.5 gb\"\n\n[[user]]\naddress = \"bob@x.lan\"\n"
	accounts := openTestAccounts(t, before)
	if got := accounts.Quota("ann@x.lan"); got != (Quota{Bytes: 3 << 29}) {
		t.Error(got)
	}
	if got := accounts.Quota("bob@x.lan"); got != (Quota{}) {
		t.Error(got)
	}
	if got := accounts.Quota("nobody@x.lan"); got != (Quota{}) {
		t.Error(got)
	}
	setQuota(t, accounts, "bob@x.lan", "20M", "1000")
	if got := accounts.Quota("bob@x.lan"); got != (Quota{20 << 20, 1000}) {
		t.Error(got)
	}
	text, err := os.ReadFile(accounts.cfg.File)
	if want := before + "quota = \"20M\"\nquota_messages = 1000\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	setQuota(t, accounts, "bob@x.lan", "0K")
	if text, _ = os.ReadFile(accounts.cfg.File); string(text) != before {
		t.Errorf("%q", text)
	}
	for text, want := range map[string]string{
		before + "quota = \"much\"\n":       `accounts.toml line 8: quota: "much" is no size: take a number and K, M, G or T, such as 500M`,
		before + "quota = 500\n":            `accounts.toml line 8: user.quota: the value is of the type int64 where string is wanted`,
		before + "quota_messages = -1\n":    `accounts.toml line 8: quota_messages: -1 is no number of messages`,
		before + "quota_messages = \"x\"\n": `accounts.toml line 8: user.quota_messages: the value is of the type string where integer is wanted`,
	} {
		if _, err := parseAccounts(text, "accounts.toml"); err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// onDisk walks over a maildrop: the size of every file in cur and new.
func onDisk(t testing.TB, dir string) (sum Quota) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if in := filepath.Base(filepath.Dir(path)); e.IsDir() || in != "cur" && in != "new" {
			return nil
		}
		st, err := e.Info()
		if err == nil {
			sum = sum.plus(Quota{st.Size(), 1})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// quotaModel does things at random to one maildrop, and knows what the quota must make of them.
type quotaModel struct {
	t     *testing.T
	rnd   *rand.Rand
	dir   string
	s     *Store
	d     *Maildrop
	limit Quota
	names []string // of folders
	n     int
}

func (m *quotaModel) open() {
	m.s = testStore(m.t, m.dir)
	m.s.quota = func(string) Quota { return m.limit }
	m.d = testDrop(m.t, m.s)
}

func (m *quotaModel) close() {
	m.d.Release()
	if err := m.s.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// text is a message of a random length.
func (m *quotaModel) text() string {
	m.n++
	return fmt.Sprintf("Subject: %d\r\n\r\n%s\r\n", m.n, strings.Repeat("x", m.rnd.IntN(2000)))
}

func (m *quotaModel) folder() string { return m.names[m.rnd.IntN(len(m.names))] }

// some gives a folder and some of its UIDs.
func (m *quotaModel) some() (*Folder, []imap.UID) {
	f := openFolder(m.t, m.d, m.folder())
	if _, err := f.Status(false); err != nil {
		m.t.Fatal(err)
	}
	var uids []imap.UID
	for _, uid := range f.allUIDs() {
		if m.rnd.IntN(3) == 0 {
			uids = append(uids, uid)
		}
	}
	return f, uids
}

// adds does something that needs room and checks that it is refused exactly when there is none.
func (m *quotaModel) adds(what string, need Quota, do func() error) {
	m.t.Helper()
	before := onDisk(m.t, m.d.dir)
	after := before.plus(need)
	fits := (m.limit.Bytes == 0 || need.Bytes == 0 || after.Bytes <= m.limit.Bytes) &&
		(m.limit.Messages == 0 || need.Messages == 0 || after.Messages <= m.limit.Messages)
	err := do()
	switch {
	case fits && err != nil:
		m.t.Fatalf("%s of %v into %v of %v: %v", what, need, before, m.limit, err)
	case !fits && !errors.Is(err, ErrOverQuota) && !errors.Is(err, ErrAboveQuota):
		m.t.Fatalf("%s of %v into %v of %v: %v", what, need, before, m.limit, err)
	case !fits:
		after = before
	}
	if got := onDisk(m.t, m.d.dir); got != after {
		m.t.Fatalf("%s: %v on disk, want %v", what, got, after)
	}
}

// outside does what another program may do to the files.
func (m *quotaModel) outside() {
	f := openFolder(m.t, m.d, m.folder())
	path := f.path
	f.Release()
	cur := filepath.Join(path, "cur")
	names, _ := listNames(cur)
	switch op := m.rnd.IntN(3); {
	case op == 0:
		text, name := m.text(), fmt.Sprintf("17%08d.outside", m.n)
		if m.rnd.IntN(2) == 0 {
			name += fmt.Sprintf(",S=%d", len(text))
		}
		if err := os.WriteFile(filepath.Join(path, []string{"cur", "new"}[m.rnd.IntN(2)], name+":2,"), []byte(text), 0o600); err != nil {
			m.t.Fatal(err)
		}
	case len(names) == 0:
	case op == 1:
		os.Remove(filepath.Join(cur, names[m.rnd.IntN(len(names))]))
	default:
		name := names[m.rnd.IntN(len(names))]
		base, _ := splitName(name)
		os.Rename(filepath.Join(cur, name), filepath.Join(cur, base+":2,F"))
	}
}

// unload takes all folders out of memory, as five idle minutes would.
func (m *quotaModel) unload() {
	m.d.mu.Lock()
	var all []*Folder
	for _, f := range m.d.folders {
		all = append(all, f)
	}
	m.d.mu.Unlock()
	for _, f := range all {
		m.d.unload(f)
	}
}

func (m *quotaModel) step() {
	switch m.rnd.IntN(13) {
	case 0, 1, 2:
		text := m.text()
		target := Delivery{Account: m.d.Account(), Folder: m.folder()}
		if m.rnd.IntN(3) == 0 {
			target.Flags = []imap.Flag{imap.FlagSeen}
		}
		m.adds("delivery", Quota{int64(len(text)), 1}, func() error {
			return m.s.Deliver(context.Background(), receiveText(m.t, m.d, text), []Delivery{target})
		})
	case 3, 4:
		var need Quota
		var msgs []AppendMessage
		for range 1 + m.rnd.IntN(3) {
			text := m.text()
			msgs = append(msgs, AppendMessage{In: receiveText(m.t, m.d, text)})
			need = need.plus(Quota{int64(len(text)), 1})
		}
		f := openFolder(m.t, m.d, m.folder())
		defer f.Release()
		m.adds("append", need, func() error { _, err := f.Append(msgs); return err })
	case 5:
		f, uids := m.some()
		defer f.Release()
		to := openFolder(m.t, m.d, m.folder())
		defer to.Release()
		msgs, err := f.Messages(nil, uids, true)
		if err != nil {
			m.t.Fatal(err)
		}
		m.adds("copy", sizeOf(msgs), func() error { _, err := f.Copy(uids, to); return err })
	case 6:
		f, uids := m.some()
		defer f.Release()
		to := openFolder(m.t, m.d, m.folder())
		defer to.Release()
		m.adds("move", Quota{}, func() error { _, _, _, err := f.Move(uids, to); return err })
	case 7, 8:
		f, uids := m.some()
		defer f.Release()
		if _, _, err := f.Expunge(uids[:len(uids)/2], false); err != nil {
			m.t.Fatal(err)
		}
		if _, _, _, err := f.SetFlags(uids[len(uids)/2:], FlagsAdd, []imap.Flag{imap.FlagAnswered}, NoUnchangedSince); err != nil {
			m.t.Fatal(err)
		}
	case 9, 10:
		m.outside()
	case 11:
		m.unload()
	case 12:
		m.rare()
	}
}

// rare does what people seldom do: another limit, a restart, other folders.
func (m *quotaModel) rare() {
	switch m.rnd.IntN(4) {
	case 0:
		m.limit = []Quota{{20 << 10, 0}, {40 << 10, 40}, {0, 30}, {1 << 20, 0}}[m.rnd.IntN(4)]
	case 1:
		m.close()
		if m.rnd.IntN(2) == 0 {
			os.RemoveAll(filepath.Join(m.dir, "index"))
		}
		m.open()
	case 2:
		old := m.names[1]
		m.names[1] = fmt.Sprintf("F%d", m.n)
		m.n++
		if err := m.d.RenameFolder(old, m.names[1]); err != nil {
			m.t.Fatal(err)
		}
	case 3:
		if err := m.d.DeleteFolder(m.names[1]); err != nil {
			m.t.Fatal(err)
		}
		if err := m.d.CreateFolder(m.names[1], nil); err != nil {
			m.t.Fatal(err)
		}
	}
}

// TestQuotaModel compares what the maildrop says it holds with a walk over its directories, and each refusal with what
// there was room for, while everything that may change it happens at random.
func TestQuotaModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	m := &quotaModel{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir(), limit: Quota{40 << 10, 40}, names: []string{"INBOX", "Start", "Archive"}}
	m.open()
	defer m.close()
	if err := m.d.CreateFolder("Start", nil); err != nil {
		t.Fatal(err)
	}
	for n := range 600 {
		m.step()
		got, err := m.d.Usage()
		if want := onDisk(t, m.d.dir); err != nil || got != want {
			t.Fatalf("step %d: usage %v, on disk %v, %v", n, got, want, err)
		}
	}
}

// TestQuotaManyAtOnce lets deliveries, appends and copies come at once. What they add stays within the quota to the byte;
// in the end all the room that is left can be used.
func TestQuotaManyAtOnce(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	const size, fit = 1000, 100
	limit := Quota{Bytes: size*fit + size/2}
	s.quota = func(string) Quota { return limit }
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "Archive")
	defer f.Release()
	text := strings.Repeat("x", size)
	var wg sync.WaitGroup
	var refused atomic.Int64
	for worker := range 8 {
		wg.Go(func() {
			for range 25 {
				var err error
				switch worker % 3 {
				case 0:
					err = s.Deliver(context.Background(), receiveText(t, d, text), []Delivery{{Account: d.Account(), Folder: "INBOX"}})
				case 1:
					_, err = f.Append([]AppendMessage{{In: receiveText(t, d, text)}})
				case 2:
					if uids := f.allUIDs(); len(uids) > 0 {
						_, err = f.Copy(uids[:1], f)
					}
				}
				switch {
				case errors.Is(err, ErrOverQuota):
					refused.Add(1)
				case err != nil:
					t.Error(err)
				}
				if held := onDisk(t, d.dir); held.Bytes > limit.Bytes {
					t.Errorf("%v of %v", held, limit)
				}
			}
		})
	}
	wg.Wait()
	held := onDisk(t, d.dir)
	if refused.Load() == 0 || held.Bytes < limit.Bytes-8*size {
		t.Errorf("%v of %v, %d refused", held, limit, refused.Load())
	}
	for ; held.Messages < fit; held.Messages++ {
		appendText(t, f, text)
	}
	if _, err := f.Append([]AppendMessage{{In: receiveText(t, d, text)}}); !errors.Is(err, ErrOverQuota) {
		t.Errorf("one too many: %v", err)
	}
	if got, err := d.Usage(); err != nil || got != (Quota{size * fit, fit}) || d.usage.promised != (Quota{}) {
		t.Errorf("%v, %v, promised %v", got, err, d.usage.promised)
	}
}

// TestQuotaSeveralRecipients delivers to two, one of whom has no room: nobody has the message, and nothing stays promised.
func TestQuotaSeveralRecipients(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	s.quota = func(account string) Quota {
		if account == "bob@example.org" {
			return Quota{Bytes: 2000}
		}
		return Quota{Bytes: 1 << 20}
	}
	deliverText(t, s, strings.Repeat("x", 1500), "bob@example.org")
	d := testDrop(t, s)
	defer d.Release()
	for size, want := range map[int]error{600: ErrOverQuota, 2001: ErrAboveQuota} {
		to := []Delivery{{Account: "ann@example.org", Folder: "INBOX"}, {Account: "bob@example.org", Folder: "INBOX"}}
		err := s.Deliver(context.Background(), receiveText(t, d, strings.Repeat("x", size)), to)
		if !errors.Is(err, want) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if held := onDisk(t, filepath.Join(dir, "mail")); held != (Quota{1500, 1}) {
			t.Errorf("%d bytes: %v on disk", size, held)
		}
	}
	if d.usage.promised != (Quota{}) {
		t.Errorf("promised: %v", d.usage.promised)
	}
	deliverText(t, s, strings.Repeat("x", 500), "ann@example.org", "bob@example.org")
	if names, _ := listNames(filepath.Join(d.dir, "tmp")); len(names) > 0 {
		t.Errorf("in tmp: %v", names)
	}
}

// TestQuotaReadsLittle makes sure that a directory is read again only when it has changed, and not at all while its folder
// is in memory or when there is no quota.
func TestQuotaReadsLittle(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	defer s.Close()
	deliverText(t, s, "hello\r\n", "ann@example.org")
	d := testDrop(t, s)
	defer d.Release()
	if d.usage.known {
		t.Error("looked without a quota")
	}
	s.quota = func(string) Quota { return Quota{Bytes: 1 << 20} }
	long := time.Now().Add(-time.Hour)
	aged := func() {
		for _, sub := range []string{"cur", "new"} {
			if err := os.Chtimes(filepath.Join(d.dir, sub), long, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	look := func(want Quota) (listed map[string]int64) {
		t.Helper()
		if got, err := d.Usage(); err != nil || got != want {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
		listed = map[string]int64{}
		for key, one := range d.usage.dirs {
			listed[key] = one.listed
		}
		return listed
	}
	aged()
	first := look(Quota{7, 1})
	if second := look(Quota{7, 1}); second["./cur"] != first["./cur"] || second["./new"] != first["./new"] {
		t.Error("a directory that has not changed was read")
	}
	deliverText(t, s, "again\r\n", "ann@example.org")
	if got := d.usage.held; got != (Quota{14, 2}) {
		t.Errorf("%v after a delivery", got)
	}
	if second := look(Quota{14, 2}); second["./cur"] != first["./cur"] || second["./new"] == first["./new"] {
		t.Error("new has changed, cur has not")
	}
	f := openFolder(t, d, "INBOX")
	if _, _, _, err := f.SetFlags(f.allUIDs()[:1], FlagsAdd, []imap.Flag{imap.FlagSeen}, NoUnchangedSince); err != nil {
		t.Fatal(err)
	}
	aged()
	if _, err := f.Status(false); err != nil {
		t.Fatal(err)
	}
	f.Release()
	d.mu.Lock()
	idle := f.idle
	d.mu.Unlock()
	idle.Stop()
	d.unload(f)
	if d.loaded(".") != nil {
		t.Fatal("still in memory")
	}
	kept := d.usage.dirs["./cur"]
	if kept.held != (Quota{7, 1}) || kept.time != long.UnixNano() {
		t.Errorf("kept of a folder that has left memory: %v", kept)
	}
	if third := look(Quota{14, 2}); third["./cur"] != kept.listed {
		t.Error("cur was read though its folder has just left memory")
	}
}

// TestQuotaLookIsSeldom looks at the bound of what other programs may add unnoticed, and that a refusal looks first.
func TestQuotaLookIsSeldom(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	s.quota = func(string) Quota { return Quota{Bytes: 1000} }
	d := testDrop(t, s)
	defer d.Release()
	deliverText(t, s, strings.Repeat("x", 500), d.Account())
	outside := filepath.Join(d.dir, "new", "1700000000.outside")
	if err := os.WriteFile(outside, make([]byte, 400), 0o600); err != nil {
		t.Fatal(err)
	}
	deliverText(t, s, strings.Repeat("x", 300), d.Account()) // within lookEvery: not seen yet
	d.usage.looked = time.Now().Add(-2 * lookEvery)
	if err := s.Room(d.Account(), 1); !errors.Is(err, ErrOverQuota) {
		t.Errorf("after lookEvery: %v", err)
	}
	if err := os.Remove(outside); err != nil {
		t.Fatal(err)
	}
	if err := s.Room(d.Account(), 200); err != nil {
		t.Errorf("after a removal: %v", err)
	}
	d.usage.took, d.usage.looked = time.Minute, time.Now().Add(-time.Minute)
	if _, due := d.usage.due(); due {
		t.Error("a look that took a minute is due again after a minute")
	}
}

// TestQuotaForgetsWithTheAccount gives an address to somebody else: what the first one held is not the second one's.
func TestQuotaForgetsWithTheAccount(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	s.quota = func(string) Quota { return Quota{Bytes: 1000} }
	deliverText(t, s, strings.Repeat("x", 900), "ann@example.org")
	if _, err := s.SetAside("ann@example.org"); err != nil {
		t.Fatal(err)
	}
	deliverText(t, s, strings.Repeat("x", 900), "ann@example.org")
}

// BenchmarkQuota measures what a quota costs: a delivery with and without one, the first look at 100,000 messages, and a
// look when nothing has changed.
func BenchmarkQuota(b *testing.B) {
	dir := b.TempDir()
	s := testStore(b, dir)
	defer s.Close()
	d := testDrop(b, s)
	defer d.Release()
	cur := filepath.Join(d.dir, "cur")
	for n := range 100_000 {
		name := fmt.Sprintf("1700%06d.M%06dP1Q%d.host,S=2048,W=2048:2,S", n, n, n)
		if err := os.WriteFile(filepath.Join(cur, name), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	text := strings.Repeat("x", 2048)
	for _, limit := range []Quota{{}, {Bytes: 1 << 40}} {
		s.quota = func(string) Quota { return limit }
		b.Run(fmt.Sprintf("deliver/quota=%v", limit.Bytes > 0), func(b *testing.B) {
			for b.Loop() {
				deliverText(b, s, text, d.Account())
			}
		})
	}
	b.Run("first look", func(b *testing.B) {
		for b.Loop() {
			d.usage.dirs = map[string]dirUsage{}
			if _, err := d.Usage(); err != nil {
				b.Fatal(err)
			}
		}
	})
	long := time.Now().Add(-time.Hour)
	for _, sub := range []string{"cur", "new"} {
		if err := os.Chtimes(filepath.Join(d.dir, sub), long, long); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("later look", func(b *testing.B) {
		for b.Loop() {
			if _, err := d.Usage(); err != nil {
				b.Fatal(err)
			}
		}
	})
	f := openFolder(b, d, "INBOX")
	defer f.Release()
	b.Run("later look, in memory", func(b *testing.B) {
		for b.Loop() {
			if _, err := d.Usage(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
