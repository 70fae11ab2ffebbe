package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// dataDir is the folder that holds everything; its methods name what lies in
// it.
type dataDir string

func (d dataDir) in(name string) string { return filepath.Join(string(d), name) }

func (d dataDir) settings() string { return d.in("settings.toml") }
func (d dataDir) accounts() string { return d.in("accounts.toml") }
func (d dataDir) codes() string    { return d.in("codes.json") }
func (d dataDir) logins() string   { return d.in("logins.json") }
func (d dataDir) secret() string   { return d.in("scram.key") }
func (d dataDir) mail() string     { return d.in("mail") }
func (d dataDir) index() string    { return d.in("index") }
func (d dataDir) tls() string      { return d.in("tls") }
func (d dataDir) lock() string     { return d.in("lock") }
func (d dataDir) control() string  { return d.in("control.json") }
func (d dataDir) queue() string    { return d.in("queue") }
func (d dataDir) sent() string     { return d.in("sent.json") }
func (d dataDir) policies() string { return d.in("mta-sts.json") }
func (d dataDir) away() string     { return d.in("away") }
func (d dataDir) senders() string  { return d.in("srs.key") }
func (d dataDir) moves() string    { return d.in("movein") }
func (d dataDir) dkim() string     { return d.in("dkim") }
func (d dataDir) doctor() string   { return d.in("doctor.json") }
func (d dataDir) relays() string   { return d.in("relays.toml") }
func (d dataDir) collect() string  { return d.in("collect.toml") }
func (d dataDir) log() string      { return d.in("log") }
func (d dataDir) metrics() string  { return d.in("metrics.json") }
func (d dataDir) diary() string    { return d.in("diary") }

func (d dataDir) collectState() string { return d.in("collect") }
func (d dataDir) spam() string         { return d.in("spam") }

// isSecret says whether only the owner of the folder may read a file in it: passwords, hashes of them, keys.
func (d dataDir) isSecret(path string) bool {
	switch path {
	case d.accounts(), d.secret(), d.relays(), d.collect(), d.control(), d.metrics():
		return true
	case filepath.Join(d.tls(), "ca.pem"): // it is for everybody
		return false
	}
	return strings.HasPrefix(path, d.tls()+string(filepath.Separator)) || strings.HasPrefix(path, d.dkim()+string(filepath.Separator))
}

// chooseDataDir gives the data folder as an absolute path: the one asked for,
// else APPLIANCE_DATA, else the system's place for it.
func chooseDataDir(asked string, getenv func(string) string) (dataDir, error) {
	if asked == "" {
		asked = getenv("APPLIANCE_DATA")
	}
	if asked == "" {
		asked = defaultDataDir(getenv)
	}
	if asked == "" {
		return "", errors.New("there is no home folder to keep the data in: give one with --data DIR")
	}
	path, err := filepath.Abs(asked)
	if err != nil {
		return "", fmt.Errorf("finding the data folder: %w", err)
	}
	return dataDir(path), nil
}

func defaultDataDir(getenv func(string) string) string {
	switch {
	case runtime.GOOS == "windows" || os.Geteuid() == 0:
		return string(systemDataDir(getenv))
	case getenv("XDG_DATA_HOME") != "":
		return filepath.Join(getenv("XDG_DATA_HOME"), "appliance")
	case getenv("HOME") != "":
		return filepath.Join(getenv("HOME"), ".local", "share", "appliance")
	}
	return ""
}

// systemDataDir is the system's place for the data folder of a service, "" for none.
func systemDataDir(getenv func(string) string) dataDir {
	if runtime.GOOS != "windows" {
		return unixDataDir("/var")
	}
	if base := getenv("ProgramData"); base != "" {
		return dataDir(filepath.Join(base, "appliance"))
	}
	return ""
}

// unixDataDir is lib/appliance in the folder for what grows, /var. On OpenWrt that is memory, and the mail must not be there.
func unixDataDir(grows string) dataDir {
	if emptiedAtStart(grows) {
		return "/srv/appliance"
	}
	return dataDir(filepath.Join(grows, "lib", "appliance"))
}

// emptiedAtStart says whether what lies in a folder, which need not be there yet, is gone when the machine starts the next time,
// or is kept from services (systemd.exec(5), PrivateTmp).
func emptiedAtStart(dir string) bool {
	below := ""
	for {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = filepath.Join(real, below)
			break
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir, below = filepath.Dir(dir), filepath.Join(filepath.Base(dir), below)
	}
	dir = strings.TrimPrefix(dir, "/private") + "/" // of macOS
	for _, memory := range []string{"/tmp/", "/var/tmp/", "/run/", "/dev/", "/proc/", "/sys/"} {
		if strings.HasPrefix(dir, memory) {
			return true
		}
	}
	return false
}

// make makes the folder, open to nobody else.
func (d dataDir) make() error {
	if info, err := os.Stat(string(d)); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is a file; the data folder is to be made there", d)
		}
		return nil
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	return closeToOthers(string(d))
}

// mustBeThere gives a sentence where there is no data folder.
func (d dataDir) mustBeThere() error {
	st, err := os.Stat(string(d))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no data folder %s", d)
	case err != nil:
		return fmt.Errorf("looking at the data folder: %w", err)
	case !st.IsDir():
		return fmt.Errorf("%s is a file, not a data folder", d)
	}
	for _, path := range []string{d.accounts(), d.mail()} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%s is no data folder: neither accounts.toml nor mail is in it", d)
}

// How long to wait for a command that works on the files right now.
const lockPatience = time.Second

// errInUse says that another process owns the data folder.
var errInUse = errors.New("in use")

// dataLock is the ownership of a data folder. It ends with the process,
// however that ends.
type dataLock struct{ file *os.File }

// tryLock takes the data folder for this process, or gives errInUse.
func (d dataDir) tryLock() (*dataLock, error) {
	f, err := os.OpenFile(d.lock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the data folder: %w", err)
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid()) // for people and for owner; nothing depends on it
	}
	return &dataLock{f}, nil
}

// lockAsIs is tryLock that changes nothing in the folder. Without a lock there, nobody has ever had the folder: fs.ErrNotExist.
func (d dataDir) lockAsIs() (*dataLock, error) {
	f, err := os.Open(d.lock())
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &dataLock{f}, nil
}

// inUse says whether a process owns the data folder. It changes nothing.
func (d dataDir) inUse() bool {
	lock, err := d.lockAsIs()
	if err == nil {
		lock.release()
	}
	return errors.Is(err, errInUse)
}

// lockForRun is tryLock for an appliance: it waits a moment, and says who has
// the folder.
func (d dataDir) lockForRun() (*dataLock, error) {
	for end := time.Now().Add(lockPatience); ; time.Sleep(20 * time.Millisecond) {
		lock, err := d.tryLock()
		if !errors.Is(err, errInUse) {
			return lock, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("another appliance%s is running with the data folder %s", d.owner(), d)
		}
	}
}

func (d dataDir) owner() string {
	text, err := os.ReadFile(d.lock())
	if pid := strings.TrimSpace(string(text)); err == nil && pid != "" {
		return " (process " + pid + ")"
	}
	return ""
}

// release gives the folder up.
func (l *dataLock) release() { _ = l.file.Close() }
