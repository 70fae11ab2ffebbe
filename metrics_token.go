package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// metricsFileSize bounds what is read of the file of the token, in octets.
const metricsFileSize = 4 << 10

// MetricsToken is what a program shows that reads the metrics from another machine. Its hash alone is kept. Safe for concurrent
// use.
type MetricsToken struct {
	file string

	mu   sync.Mutex
	hash []byte // of the token, nil for none
}

// metricsFile is what DATA/metrics.json holds.
type metricsFile struct {
	SHA256 string `json:"sha256"`
}

// OpenMetricsToken reads the token's hash. A damaged file is an error: nobody gets in with it.
func OpenMetricsToken(file string) (*MetricsToken, error) {
	t := &MetricsToken{file: file}
	var kept metricsFile
	err := readJSON(file, metricsFileSize, &kept)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		if t.hash, err = hex.DecodeString(kept.SHA256); err == nil && len(t.hash) != sha256.Size {
			err = errors.New("it holds no hash")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the token for metrics, %s: remove the file, and make a new one: %w", file, err)
	}
	return t, nil
}

// Make makes a new token, in place of the one before. It cannot be shown again.
func (t *MetricsToken) Make() (token string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	token = rand.Text()
	hash := sha256.Sum256([]byte(token))
	if err := writeJSON(t.file, metricsFile{hex.EncodeToString(hash[:])}); err != nil {
		return "", fmt.Errorf("keeping the token for metrics: %w", err)
	}
	t.hash = hash[:]
	return token, nil
}

// Remove removes the token.
func (t *MetricsToken) Remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := os.Remove(t.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the token for metrics: %w", err)
	}
	t.hash = nil
	return nil
}

// Exists says whether there is a token.
func (t *MetricsToken) Exists() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hash != nil
}

// Is says whether this is the token. It takes the same time for all.
func (t *MetricsToken) Is(token string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	hash := sha256.Sum256([]byte(token))
	return t.hash != nil && subtle.ConstantTimeCompare(hash[:], t.hash) == 1
}
