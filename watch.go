package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Changes that other programs make to open folders are noticed by the system's file notices where it has them, and by a
// look every pollEvery where it has not (network file systems, too many watches).

const (
	pollEvery = 30 * time.Second
	// eventDelay collects notices: programs change files in bursts.
	eventDelay = 10 * time.Millisecond
	// eventNames bounds the names that are looked at one by one; beyond it the directories are read.
	eventNames = 1000
	// hushFrom is from how many changes of our own on notices may be off meanwhile, hushDelay the time until the directory
	// is read after it: what others did could not be noticed.
	hushFrom  = 200
	hushDelay = time.Second
)

// dirListener is told what happens in a directory: that a path has a file now or no longer, or that notices were lost, which
// need not be looked into before a while is over. It must not block.
type dirListener interface {
	noteEvent(path string, there bool)
	noteLostEvents(after time.Duration)
}

// watcher hands the notices to those who listen.
type watcher struct {
	log *slog.Logger

	// calls is held while the library is called, which on Windows waits until all notices are taken. So whoever takes them
	// must not need it.
	calls sync.Mutex
	fs    *fsnotify.Watcher
	tried bool

	mu        sync.Mutex               // taken after calls
	listeners map[string][]dirListener // by watched directory
}

func newWatcher(log *slog.Logger) *watcher {
	return &watcher{log: log, listeners: make(map[string][]dirListener)}
}

// add watches a directory for a listener; false where that cannot be had.
func (w *watcher) add(dir string, l dirListener) bool {
	w.calls.Lock()
	defer w.calls.Unlock()
	if !w.tried {
		w.tried = true
		fs, err := fsnotify.NewWatcher()
		if err != nil {
			w.log.Warn("no file notices, looking every half minute", "error", err)
		} else {
			w.fs = fs
			go w.run(fs)
		}
	}
	if w.fs == nil {
		return false
	}
	listened := w.listen(dir, l) // before the first notice
	if w.fs.Add(dir) != nil {
		if !listened {
			w.unlisten(dir, l)
		}
		return false
	}
	return true
}

// listen adds a listener, and says whether it was there already.
func (w *watcher) listen(dir string, l dirListener) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Contains(w.listeners[dir], l) {
		return true
	}
	w.listeners[dir] = append(w.listeners[dir], l)
	return false
}

// unlisten takes a listener out, and says whether it was the last one of the directory.
func (w *watcher) unlisten(dir string, l dirListener) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	had := w.listeners[dir]
	// The list may be in use: listening makes a copy.
	left := slices.DeleteFunc(slices.Clone(had), func(other dirListener) bool { return other == l })
	if len(left) > 0 {
		w.listeners[dir] = left
		return false
	}
	delete(w.listeners, dir)
	return len(had) > 0
}

func (w *watcher) remove(dir string, l dirListener) {
	w.calls.Lock()
	defer w.calls.Unlock()
	if w.unlisten(dir, l) && w.fs != nil {
		w.fs.Remove(dir)
	}
}

func (w *watcher) run(fs *fsnotify.Watcher) {
	for {
		select {
		case e, ok := <-fs.Events:
			if !ok {
				return
			}
			if e.Op == fsnotify.Chmod || e.Op == fsnotify.Write {
				continue
			}
			if i := strings.LastIndexByte(e.Name, filepath.Separator); i > 0 {
				for _, l := range w.listening(e.Name[:i]) {
					l.noteEvent(e.Name, e.Has(fsnotify.Create))
				}
			}
		case _, ok := <-fs.Errors:
			if !ok {
				return
			}
			w.all() // notices were lost
		}
	}
}

// listening gives who listens to a directory; the list stays as it is.
func (w *watcher) listening(dir string) []dirListener {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(w.listeners[dir])
}

func (w *watcher) all() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, list := range w.listeners {
		for _, l := range list {
			l.noteLostEvents(eventDelay)
		}
	}
}

func (w *watcher) close() {
	w.calls.Lock()
	defer w.calls.Unlock()
	w.tried = true
	if w.fs != nil {
		w.fs.Close()
		w.fs = nil
	}
}

// folderEvents collects a folder's notices.
type folderEvents struct {
	mu    sync.Mutex
	names map[string]bool // path -> the last notice says that it is there
	lost  bool
	timer *time.Timer
	poll  *time.Timer
}

// noteEvent may be called at any time: a file has got the path, or no longer has it.
func (f *Folder) noteEvent(path string, there bool) {
	e := &f.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.names) >= eventNames {
		e.lost, e.names = true, nil
	} else if !e.lost {
		if e.names == nil {
			e.names = make(map[string]bool)
		}
		e.names[path] = there
	}
	if e.timer == nil {
		e.timer = time.AfterFunc(eventDelay, f.takeEvents)
	}
}

// noteLostEvents lets the directories be read after a while: notices were lost.
func (f *Folder) noteLostEvents(after time.Duration) {
	e := &f.events
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost, e.names = true, nil
	if e.timer == nil {
		e.timer = time.AfterFunc(after, f.takeEvents)
	}
}

// takeEvents looks at the names that were noticed. If one of them is not explained by our own changes, the directories are
// read.
func (f *Folder) takeEvents() {
	e := &f.events
	e.mu.Lock()
	names, lost := e.names, e.lost
	e.names, e.lost, e.timer = nil, false, nil
	e.mu.Unlock()
	f.mu.Lock()
	defer f.unlock()
	if f.gone {
		return
	}
	if lost || f.unexplained(names) {
		if err := f.scan(true, true, nil); err != nil {
			f.drop.log.Warn("mailbox not read", "folder", f.dir, "error", err)
		}
	}
}

// unexplained says whether one of the paths is not as the folder has it. Only a path whose last notice says so is looked
// at: notices come late, and the folder may have changed it again.
func (f *Folder) unexplained(paths map[string]bool) bool {
	known := f.baseIndex()
	for path, there := range paths {
		dir, name := filepath.Split(path)
		if name == "" || name[0] == '.' {
			continue
		}
		base, info := splitName(name)
		i := -1
		if uid, ok := known[base]; ok {
			i = f.find(uid, 0)
		}
		ours := i >= 0 && f.msgs[i].info == info && filepath.Base(dir) == f.msgs[i].subdir()
		if there == ours {
			continue
		}
		if _, err := os.Lstat(path); (err == nil) != ours {
			return true
		}
	}
	return false
}

// hush turns the notices of cur/ off before so large a change of our own that looking at each of its notices costs more
// than reading the directory once, which listen has done. false: they stay on, or are off already.
func (f *Folder) hush(changes int) bool {
	// Where watching a directory is to open all of its files, notices stay on.
	if runtime.GOOS != "linux" || !f.watched || f.hushed || changes < hushFrom || changes < len(f.msgs)/4 {
		return false
	}
	f.store.watch.remove(filepath.Join(f.path, "cur"), f)
	f.watched, f.hushed = false, true
	return true
}

// listen turns the notices on again.
func (f *Folder) listen() {
	if !f.hushed {
		return
	}
	f.hushed = false
	if !f.gone {
		f.watchDirs()
		f.noteLostEvents(hushDelay)
	}
}

// watchDirs starts to watch the folder's directories.
func (f *Folder) watchDirs() { f.watched = f.watchBoth() }

// watchBoth says whether there are notices of both directories.
func (f *Folder) watchBoth() bool {
	cur := f.store.watch.add(filepath.Join(f.path, "cur"), f)
	return cur && f.store.watch.add(filepath.Join(f.path, "new"), f)
}

// unwatch ends it.
func (f *Folder) unwatch() {
	f.store.watch.remove(filepath.Join(f.path, "cur"), f)
	f.store.watch.remove(filepath.Join(f.path, "new"), f)
	f.watched = false
}

// watchPoll starts the slow look where there are no notices; it ends with the last view. The lock is held.
func (f *Folder) watchPoll() {
	if f.watched || f.events.poll != nil || len(f.views) == 0 || f.gone {
		return
	}
	f.events.poll = time.AfterFunc(pollEvery, func() {
		f.mu.Lock()
		defer f.unlock()
		f.events.poll = nil
		if f.gone {
			return
		}
		if err := f.refresh(); err != nil {
			f.drop.log.Warn("mailbox not read", "folder", f.dir, "error", err)
		}
		f.watchPoll()
	})
}
