package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"time"
)

// Whoever has started the appliance by hand before it is installed has accounts and mail in a folder below the home, where the service
// gets at nothing. The installation copies that folder to the service's, once, while the service has none of its own. The folder in the
// home stays as it is.

// earlierFolder gives the data folder of whoever calls sudo, "" where there is none with accounts.
func earlierFolder(getenv func(string) string) dataDir {
	name := getenv("SUDO_USER")
	if name == "" {
		name = getenv("DOAS_USER")
	}
	person, err := user.Lookup(name)
	if name == "" || err != nil || person.HomeDir == "" {
		return ""
	}
	places := []string{filepath.Join(person.HomeDir, ".local", "share", "appliance")}
	if set := getenv("XDG_DATA_HOME"); set != "" {
		places = append(places, filepath.Join(set, "appliance"))
	}
	for _, place := range places {
		dir := dataDir(place)
		if info, err := os.Stat(dir.accounts()); err == nil && info.Mode().IsRegular() && info.Size() > 0 && filepath.IsAbs(place) {
			return dir
		}
	}
	return ""
}

// takeOver copies the folder of an earlier start by hand to where the service has its own, if that holds nothing yet and nobody has
// chosen another. It gives the folder that it has copied, "" for none.
func (c *call) takeOver(in *Installation) (earlier dataDir, err error) {
	earlier = earlierFolder(os.Getenv)
	if earlier == "" || in.State().Installed || c.data != systemDataDir(os.Getenv) || earlier == c.data {
		return "", nil
	}
	if _, err := os.Lstat(c.data.accounts()); !errors.Is(err, fs.ErrNotExist) {
		return "", err // the service had accounts before
	}
	held, err := earlier.lockAsIs()
	switch {
	case errors.Is(err, errInUse):
		return "", fmt.Errorf("somebody runs an appliance%s with the data folder %s: end it first (Ctrl-C where it runs), then its accounts and its mail go to the service", earlier.owner(), earlier)
	case err == nil:
		defer held.release()
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("opening the lock of the data folder: %w", err)
	}
	if err := copyDataDir(earlier, c.data); err != nil {
		return "", fmt.Errorf("copying %s to %s: %w; nothing was installed", earlier, c.data, err)
	}
	return earlier, nil
}

// setAside puts a copy away that a failed installation leaves: the next one copies anew, and what may have come in meanwhile is kept.
func (c *call) setAside(earlier dataDir, why error) error {
	aside := fmt.Sprintf("%s-%s", c.data, time.Now().Format("20060102-150405"))
	if err := os.Rename(string(c.data), aside); err != nil {
		aside = string(c.data)
	}
	return fmt.Errorf("%w; %s is as it was, and its copy for the service lies in %s", why, earlier, aside)
}

// sayEarlier tells what became of the folder of an earlier start by hand.
func (c *call) sayEarlier(earlier dataDir) {
	if earlier == "" {
		return
	}
	c.say("The accounts and the mail of your earlier start by hand are the service's now, in %s. It is a\ncopy: %s stays as it was and is not used any more. When you have seen that all is there: %s\n", c.data, earlier, deleteWords(string(earlier)))
}
