package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
)

// acmeStorage keeps what certmagic wants kept, as files in DATA/tls/acme: certificates with their keys, accounts with the
// authorities, OCSP answers. What certmagic brings for that has lock files, which a crash leaves behind and which a
// goroutine looks after; here one process owns the data folder, so that locks are in memory. Files are 0600, folders 0700,
// and what is stored is on disk. Safe for concurrent use.
type acmeStorage struct {
	dir string

	mu    sync.Mutex
	locks map[string]chan struct{} // closed when the lock is free again
}

func newACMEStorage(dir string) *acmeStorage {
	return &acmeStorage{dir: dir, locks: map[string]chan struct{}{}}
}

// path gives the file of a key. Nothing that stands in a key leads out of the folder.
func (s *acmeStorage) path(key string) string {
	parts := []string{s.dir}
	for part := range strings.SplitSeq(key, "/") {
		if part != "" {
			parts = append(parts, storageName(part))
		}
	}
	return filepath.Join(parts...)
}

// storageName makes a part of a key the name of a file on any system, Windows too: letters, digits and a few signs, no
// device's name, no dot at an end. What is one already stays as it is.
func storageName(part string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._-@+", r):
			return r
		}
		return '_'
	}, part)
	if strings.Trim(name, ".") != name {
		name = "_" + strings.Trim(name, ".") + "_"
	}
	if reservedName(strings.ToLower(name)) {
		name = "_" + name
	}
	return name
}

func (s *acmeStorage) Store(_ context.Context, key string, value []byte) error {
	file := s.path(key)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return writeFileAtomic(file, value)
}

func (s *acmeStorage) Load(_ context.Context, key string) ([]byte, error) {
	return os.ReadFile(s.path(key))
}

func (s *acmeStorage) Delete(_ context.Context, key string) error { return os.RemoveAll(s.path(key)) }

func (s *acmeStorage) Exists(_ context.Context, key string) bool {
	_, err := os.Stat(s.path(key))
	return err == nil
}

// List gives the keys below a prefix as they are on disk.
func (s *acmeStorage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	root := s.path(prefix)
	var keys []string
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || file == root {
			return err
		}
		below, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		keys = append(keys, path.Join(prefix, filepath.ToSlash(below)))
		if d.IsDir() && !recursive {
			return fs.SkipDir
		}
		return nil
	})
	return keys, err
}

func (s *acmeStorage) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	info, err := os.Stat(s.path(key))
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{Key: key, Modified: info.ModTime(), Size: info.Size(), IsTerminal: !info.IsDir()}, nil
}

// Lock waits until nobody else has the lock of that name.
func (s *acmeStorage) Lock(ctx context.Context, name string) error {
	for {
		s.mu.Lock()
		held := s.locks[name]
		if held == nil {
			s.locks[name] = make(chan struct{})
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *acmeStorage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.locks[name]
	if held == nil {
		return errors.New("unlocking what is not locked: " + name)
	}
	delete(s.locks, name)
	close(held)
	return nil
}
