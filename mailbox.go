package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
)

// The store as the protocols see it: a Store has Maildrops, a Maildrop has Folders (folder.go), a session looks at a
// Folder through a View (view.go). Everything here is safe for concurrent use unless it says otherwise.

const (
	// idleKeep is how long a folder or maildrop that nobody uses stays in memory.
	idleKeep = 5 * time.Minute
	// indexDelay collects changes before the index is written.
	indexDelay = time.Second
	// defaultJournalFrom is how many files are renamed as fast as the journal is on disk.
	defaultJournalFrom = 256
	// tmpKeep is the age at which a file in tmp/ is what a crash left (the Maildir convention).
	tmpKeep = 36 * time.Hour
	// asideMark stands in the names of maildrops that were set aside.
	asideMark = ".removed-"
)

// StoreConfig is what OpenStore needs.
type StoreConfig struct {
	MailDir  string // DATA/mail
	IndexDir string // DATA/index
	Host     string // for file names
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now

	// Quota tells what the maildrop of an account may hold; nil: none has a limit. It is asked at each delivery.
	Quota func(account string) Quota
}

// Store is all maildrops of the appliance.
type Store struct {
	mailDir, indexDir string
	log               *slog.Logger
	now               func() time.Time
	names             namer
	syncs             dirSyncer
	watch             *watcher
	buffers           sync.Pool // *[incomingBuffer]byte of messages that are being received
	access            accessTable
	lockOwner         string        // "PID:HOST" for lock files
	serials           atomic.Uint64 // of folders
	journalFrom       int           // from how many messages on a change of flags goes by the journal
	quota             func(account string) Quota
	arrival           atomic.Pointer[func(f *Folder, uids []imap.UID)]              // see OnArrival
	filing            atomic.Pointer[func(Filing)]                                  // see OnFiling
	transfers         atomic.Pointer[func(from, to *Folder, uids []imap.UID) error] // see GuardTransfers

	mu      sync.Mutex
	drops   map[string]*Maildrop
	leaving map[string]chan struct{} // closed when the account's last maildrop is written
	usages  map[string]*usage        // by account
	renamed map[string]time.Time     // accounts that have got another address, and when
	renames sync.Mutex               // held while one gets it
	closed  bool
}

// OpenStore makes the mail folder if need be.
func OpenStore(cfg StoreConfig) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := makeDirs(cfg.MailDir); err != nil {
		return nil, fmt.Errorf("opening the mail folder: %w", err)
	}
	s := &Store{mailDir: cfg.MailDir, indexDir: cfg.IndexDir, log: cfg.Log, now: cfg.Now, quota: cfg.Quota,
		drops: make(map[string]*Maildrop), leaving: make(map[string]chan struct{}), usages: make(map[string]*usage), renamed: make(map[string]time.Time)}
	s.journalFrom = defaultJournalFrom
	s.names = namer{host: safeHost(cfg.Host), now: cfg.Now}
	s.watch = newWatcher(cfg.Log)
	s.buffers.New = func() any { return new([incomingBuffer]byte) }
	host, _ := os.Hostname()
	s.lockOwner = fmt.Sprintf("%d:%s", os.Getpid(), host)
	return s, nil
}

// Close writes the indexes and closes all maildrops. Sessions should have ended.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	drops := make([]*Maildrop, 0, len(s.drops))
	for _, d := range s.drops {
		drops = append(drops, d)
	}
	s.drops = make(map[string]*Maildrop)
	var leaving []chan struct{}
	for _, left := range s.leaving {
		leaving = append(leaving, left)
	}
	s.mu.Unlock()
	for _, left := range leaving {
		<-left
	}
	var errs []error
	for _, d := range drops {
		errs = append(errs, d.shut())
	}
	s.watch.close()
	return errors.Join(errs...)
}

// accountDir gives the directories of an account; the account's two parts must be plain names.
func (s *Store) accountDir(account string) (mail, index string, err error) {
	local, domain, ok := cutLast(account, '@')
	if !ok || !plainName(local) || !plainName(domain) {
		return "", "", fmt.Errorf("account %q: %w", account, ErrBadAddress)
	}
	return filepath.Join(s.mailDir, domain, local), filepath.Join(s.indexDir, domain, local+".db"), nil
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// plainName keeps what comes from outside within its directory.
func plainName(name string) bool {
	return name != "" && len(name) <= 200 && name[0] != '.' && !strings.HasSuffix(name, ".") &&
		!strings.ContainsAny(name, "/\\:*?\"<>|") && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Maildrop opens the maildrop of an account ("user@domain", lower case), making it with its default folders at first
// use. Release it when done.
func (s *Store) Maildrop(account string) (*Maildrop, error) {
	dir, indexPath, err := s.accountDir(account)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	if s.refuses(account) {
		s.mu.Unlock()
		return nil, errRenamed
	}
	d := s.drops[account]
	if d == nil {
		d = &Maildrop{store: s, after: s.leaving[account], account: account, dir: dir, indexPath: indexPath, folders: make(map[string]*Folder), log: s.log.With("account", account)}
		d.usage = s.usageOf(account)
		s.drops[account] = d
	}
	d.refs++
	s.mu.Unlock()
	d.ready.Do(func() {
		if d.after != nil {
			<-d.after
		}
		d.readyErr = d.prepare()
	})
	if d.readyErr != nil {
		d.Release()
		s.mu.Lock()
		if s.drops[account] == d { // try anew next time
			delete(s.drops, account)
		}
		s.mu.Unlock()
		return nil, diskError(d.readyErr)
	}
	return d, nil
}

// SetAside renames the mail of a removed account to USER.removed-DATE beside it (never deletes) and gives the new path;
// "" when there was none. Sessions that are open get errors from then on. The index is deleted.
func (s *Store) SetAside(account string) (string, error) {
	dir, indexPath, err := s.accountDir(account)
	if err != nil {
		return "", err
	}
	defer s.closeDrop(account)()
	removeFile(indexPath)
	aside := dir + asideMark + s.now().Format("20060102-150405")
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		aside = fmt.Sprintf("%s%s%s-%d", dir, asideMark, s.now().Format("20060102-150405"), n)
	}
	if err := renameFile(dir, aside); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("setting the mail aside: %w", err)
	}
	s.access.forget(dir)
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return "", fmt.Errorf("setting the mail aside: %w", err)
	}
	return aside, nil
}

// leave takes an account's maildrop out of use; whoever opens the account anew waits until left is called. The lock is held.
func (s *Store) leave(account string) (left func()) {
	done := make(chan struct{})
	delete(s.drops, account)
	s.leaving[account] = done
	return func() {
		s.mu.Lock()
		if s.leaving[account] == done {
			delete(s.leaving, account)
		}
		s.mu.Unlock()
		close(done)
	}
}

// diskError marks a full disk so that callers can tell it with errors.Is(err, ErrDiskFull).
func diskError(err error) error {
	if err != nil && isDiskFull(err) && !errors.Is(err, ErrDiskFull) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// Maildrop is one person's mail: a Maildir++ with its folders.
type Maildrop struct {
	store     *Store
	account   string
	dir       string
	indexPath string
	log       *slog.Logger
	after     <-chan struct{} // closed when the account's former maildrop is written; nil: there was none
	ready     sync.Once
	readyErr  error

	refs int         // covered by store.mu
	idle *time.Timer // covered by store.mu

	pop3  sync.Mutex
	usage *usage

	validityMu sync.Mutex // covers the file of the last UIDVALIDITY

	listMu    sync.Mutex // covers the list of folders, subscriptions, special uses and annotations on disk
	attrs     attributes // as last read; nil: not yet
	attrStamp fileStamp

	// saveMu keeps the index in order: whoever takes changes out of folders holds it until they are written, and no
	// folder goes away or gets another name meanwhile.
	saveMu sync.Mutex

	mu      sync.Mutex
	folders map[string]*Folder // loaded, by directory
	leaving chan struct{}      // closed when the folder that is being unloaded is written; nil: there is none
	index   *index             // nil until a folder is loaded
	closed  bool

	watches mailboxWatches

	// Locks are taken in the order listMu, saveMu, mu, Folder.mu, timerMu, watches.mu; store.mu comes last. Two Folder.mu are
	// taken by lockBoth.
	timerMu sync.Mutex
	timer   *time.Timer // the next index flush
	stopped bool
}

// Account is the lower-case address the maildrop belongs to.
func (d *Maildrop) Account() string { return d.account }

// Release gives the maildrop back; unused, it leaves memory after idleKeep.
func (d *Maildrop) Release() {
	s := d.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.refs--; d.refs > 0 || s.closed {
		return
	}
	if d.idle == nil {
		d.idle = time.AfterFunc(idleKeep, d.expire)
	} else {
		d.idle.Reset(idleKeep)
	}
}

// expire closes the maildrop if it is still unused.
func (d *Maildrop) expire() {
	s := d.store
	s.mu.Lock()
	if d.refs > 0 || s.drops[d.account] != d {
		s.mu.Unlock()
		return
	}
	left := s.leave(d.account)
	s.mu.Unlock()
	defer left()
	if err := d.shut(); err != nil {
		d.log.Warn("closing the maildrop", "error", err)
	}
}

// defaultFolders exist from the start; their names carry their special use.
var defaultFolders = [...]struct {
	name string
	use  imap.MailboxAttr
}{
	{"Archive", imap.MailboxAttrArchive},
	{"Drafts", imap.MailboxAttrDrafts},
	{junkName, imap.MailboxAttrJunk},
	{"Sent", imap.MailboxAttrSent},
	{"Trash", imap.MailboxAttrTrash},
}

// prepare makes what is missing of the maildrop. The defaults are made once: whoever deletes one has it deleted.
func (d *Maildrop) prepare() error {
	if st, err := os.Stat(filepath.Join(d.dir, "cur")); err == nil && st.IsDir() {
		if err := makeMaildir(d.dir); err != nil {
			return err
		}
		go d.cleanTmp()
		return nil
	}
	if err := makeMaildir(d.dir); err != nil {
		return err
	}
	subscribed := []string{inboxName}
	for _, f := range defaultFolders {
		if err := makeFolderDir(filepath.Join(d.dir, "."+f.name)); err != nil {
			return err
		}
		subscribed = append(subscribed, f.name)
	}
	if _, err := os.Stat(filepath.Join(d.dir, subscriptionsName)); err == nil {
		return nil
	}
	sort.Strings(subscribed)
	return saveSubscriptions(d.dir, subscribed)
}

// makeFolderDir makes a folder below the maildrop; the empty file maildirfolder is Maildir++'s mark of one.
func makeFolderDir(dir string) error {
	if err := makeMaildir(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "maildirfolder"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("making a mailbox: %w", err)
	}
	return f.Close()
}

// cleanTmp removes what crashes left in tmp/. A message with an old date has an old modification time in the moment before it
// is delivered: then its name tells that it is a new file.
func (d *Maildrop) cleanTmp() {
	tmp := filepath.Join(d.dir, "tmp")
	names, _ := listNames(tmp)
	for _, n := range names {
		seconds, _, _ := strings.Cut(n, ".")
		if begun, err := strconv.ParseInt(seconds, 10, 64); err == nil && time.Since(time.Unix(begun, 0)) <= tmpKeep {
			continue
		}
		path := filepath.Join(tmp, n)
		if st, err := os.Lstat(path); err == nil && time.Since(st.ModTime()) > tmpKeep {
			removeFile(path)
		}
	}
}

// lockList locks listMu. ErrClosed once the maildrop was put aside: its path may be another person's by then.
func (d *Maildrop) lockList() error {
	d.listMu.Lock()
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		d.listMu.Unlock()
		return ErrClosed
	}
	return nil
}

// shut unloads the folders and closes the index; the maildrop cannot be used after.
func (d *Maildrop) shut() error {
	d.listMu.Lock() // what is changing the list finishes first
	defer d.listMu.Unlock()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	folders := make([]*Folder, 0, len(d.folders))
	for _, f := range d.folders {
		folders = append(folders, f)
	}
	d.folders = make(map[string]*Folder)
	ix := d.index
	d.mu.Unlock()
	d.timerMu.Lock()
	d.stopped = true
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timerMu.Unlock()
	d.watches.close()
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	var batches []folderBatch
	for _, f := range folders {
		if b, ok := f.putAway(); ok {
			batches = append(batches, b)
		}
	}
	if ix == nil {
		return nil
	}
	return errors.Join(ix.save(batches), ix.close())
}

// wakeIndex arranges for the index to be written soon.
func (d *Maildrop) wakeIndex() {
	d.timerMu.Lock()
	defer d.timerMu.Unlock()
	if d.timer != nil || d.stopped {
		return
	}
	d.timer = time.AfterFunc(indexDelay, d.flush)
}

// flush writes what changed to the index and puts appended UID lines on disk.
func (d *Maildrop) flush() {
	d.timerMu.Lock()
	d.timer = nil
	d.timerMu.Unlock()
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.mu.Lock()
	ix := d.index
	folders := make([]*Folder, 0, len(d.folders))
	for _, f := range d.folders {
		folders = append(folders, f)
	}
	closed := d.closed
	d.mu.Unlock()
	if closed || ix == nil {
		return
	}
	var batches []folderBatch
	for _, f := range folders {
		if b, ok := f.takeBatch(ix.generation()); ok {
			batches = append(batches, b)
		}
		if err := f.syncList(); err != nil {
			d.log.Warn("UID list not synced", "error", err)
		}
	}
	err := ix.save(batches)
	if err != nil {
		d.log.Warn("index not written", "error", err)
	}
	for _, f := range folders {
		f.batchWritten(err)
	}
}

// LockPOP3 gives the one POP3 session of the maildrop (RFC 1939 §4); ok is false when there is one already.
func (d *Maildrop) LockPOP3() (unlock func(), ok bool) {
	if !d.pop3.TryLock() {
		return nil, false
	}
	return sync.OnceFunc(d.pop3.Unlock), true
}

// validityName is the file that holds the last UIDVALIDITY given, in hexadecimal, as Dovecot has it too.
const validityName = "dovecot-uidvalidity"

// newValidity gives a UIDVALIDITY: the time, and never one that was given before. A mailbox may be deleted and made anew
// within a second, before and after a restart, and the clock of a machine without a battery may go back (RFC 9051
// §2.3.1.1: name, UIDVALIDITY and UID mean one message for ever).
func (d *Maildrop) newValidity() uint32 {
	d.validityMu.Lock()
	defer d.validityMu.Unlock()
	path := filepath.Join(d.dir, validityName)
	last := uint64(0)
	if text, err := os.ReadFile(path); err == nil {
		last, _ = strconv.ParseUint(strings.TrimSpace(string(text)), 16, 32)
	}
	if last == math.MaxUint32 { // damaged
		last = 0
	}
	validity := uint32(max(last+1, uint64(d.store.now().Unix())))
	if err := writeFileAtomic(path, fmt.Appendf(nil, "%08x", validity)); err != nil {
		d.log.Warn("the last UIDVALIDITY is not kept", "error", err)
	}
	return validity
}

// openedIndex opens the index at its first use.
func (d *Maildrop) openedIndex() *index {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.index == nil && !d.closed {
		d.index = openIndex(d.indexPath, d.log, d.wakeIndex)
	}
	return d.index
}

// Open gives the shared folder, loading it if no one has it open: ErrNoFolder, ErrBadName. Release it when done.
func (d *Maildrop) Open(name string) (*Folder, error) {
	d.listMu.Lock()
	dir, exists, err := d.findDir(name)
	d.listMu.Unlock()
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, ErrNoFolder
	}
	ix := d.openedIndex()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, ErrClosed
	}
	f := d.folders[dir]
	if f == nil {
		f = newFolder(d, dir, ix)
		f.after = d.leaving
		d.folders[dir] = f
	}
	d.hold(f)
	d.mu.Unlock()
	f.loading.Do(func() { f.loadErr = f.load() })
	if f.loadErr != nil {
		d.mu.Lock()
		if d.folders[dir] == f {
			delete(d.folders, dir)
		}
		d.mu.Unlock()
		d.Release()
		return nil, diskError(f.loadErr)
	}
	return f, nil
}

// hold counts one more user of a folder, and with it of the maildrop: neither leaves memory before it is released as
// often. d.mu is held.
func (d *Maildrop) hold(f *Folder) {
	f.refs++
	d.store.mu.Lock()
	d.refs++
	d.store.mu.Unlock()
}

// loaded gives a folder only if it is in memory, with a reference.
func (d *Maildrop) loaded(dir string) *Folder {
	d.mu.Lock()
	f := d.folders[dir]
	if f != nil {
		d.hold(f)
	}
	d.mu.Unlock()
	if f == nil {
		return nil
	}
	f.loading.Do(func() { f.loadErr = f.load() })
	if f.loadErr != nil {
		f.Release()
		return nil
	}
	return f
}

// release is Folder.Release.
func (d *Maildrop) release(f *Folder) {
	defer d.Release()
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.refs--; f.refs > 0 || d.closed {
		return
	}
	if f.idle == nil {
		f.idle = time.AfterFunc(idleKeep, func() { d.unload(f) })
	} else {
		f.idle.Reset(idleKeep)
	}
}

// unload takes an unused folder out of memory, its state written to the index.
func (d *Maildrop) unload(f *Folder) {
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	d.mu.Lock()
	ix := d.index
	if f.refs > 0 || d.closed || d.folders[f.dir] != f {
		d.mu.Unlock()
		return
	}
	delete(d.folders, f.dir)
	left := make(chan struct{}) // a session that opens the folder anew waits for what is written here
	d.leaving = left
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.leaving = nil
		d.mu.Unlock()
		close(left)
	}()
	b, ok := f.putAway()
	if ok && ix != nil {
		if err := ix.save([]folderBatch{b}); err != nil {
			d.log.Warn("index not written", "error", err)
		}
	}
	if ok {
		d.usage.keep(f)
	}
}
