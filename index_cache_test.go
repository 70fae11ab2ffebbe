package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/emersion/go-imap/v2"
	"go.etcd.io/bbolt"
)

// cacheIndex opens an index by itself.
func cacheIndex(t *testing.T) *index {
	t.Helper()
	ix := openIndex(filepath.Join(t.TempDir(), "x.db"), slog.New(slog.DiscardHandler), func() {})
	t.Cleanup(func() { ix.close() })
	return ix
}

// listCached lists the values of a kind.
func listCached(ix *index, dir string, kind CacheKind) (list []string) {
	ix.eachCached(dir, kind, func(uid imap.UID, value []byte) {
		list = append(list, fmt.Sprintf("%d %s", uid, value[:min(len(value), 9)]))
	})
	return list
}

// TestEachCached visits values that are written, that wait, and that are to be dropped.
func TestEachCached(t *testing.T) {
	ix := cacheIndex(t)
	put := func(uid imap.UID, value string) {
		t.Helper()
		if !ix.putCached("a", 3, uid, []byte(value)) {
			t.Fatal("no room")
		}
	}
	want := func(what string, list ...string) {
		t.Helper()
		if got := listCached(ix, "a", 3); !slices.Equal(got, list) {
			t.Errorf("%s: %q, want %q", what, got, list)
		}
	}
	save := func() {
		t.Helper()
		if err := ix.savePending(); err != nil {
			t.Fatal(err)
		}
	}
	want("nothing is there")
	for uid := imap.UID(10); uid <= 50; uid += 10 {
		put(uid, "old")
	}
	want("nothing is written", "10 old", "20 old", "30 old", "40 old", "50 old")
	save()
	put(5, "new")
	put(20, "new")
	put(45, "new")
	put(60, "new")
	ix.putCached("a", 2, 30, []byte("of another kind"))
	ix.putCached("b", 3, 30, []byte("of another folder"))
	want("some are written", "5 new", "10 old", "20 new", "30 old", "40 old", "45 new", "50 old", "60 new")
	ix.dropCached("a", 3, []imap.UID{5, 40, 99})
	want("some are dropped", "10 old", "20 new", "30 old", "45 new", "50 old", "60 new")
	put(40, "back")
	save()
	want("all is written", "10 old", "20 new", "30 old", "40 back", "45 new", "50 old", "60 new")
	if len(ix.pending)+len(ix.drops)+ix.pendingBytes != 0 {
		t.Errorf("%d values wait, %d drops, %d bytes", len(ix.pending), len(ix.drops), ix.pendingBytes)
	}
	ix.dropCached("a", 3, []imap.UID{10})
	ix.renameFolder("a", "c")
	save()
	if got := listCached(ix, "c", 3); len(got) != 7 {
		t.Errorf("renamed: %q", got)
	}
}

// TestLargeValues writes more than fits into one transaction, reads it in several, and gives the mapped pages back. What
// finds no room is refused.
func TestLargeValues(t *testing.T) {
	t.Parallel()
	ix := cacheIndex(t)
	value := bytes.Repeat([]byte("0123456789abcdef"), 40<<10) // 640 KB
	var want []string
	for round := range 4 {
		for i := range 16 {
			uid := imap.UID(100*round + i + 1)
			copy(value, fmt.Sprintf("%09d", uid))
			if !ix.putCached("a", cacheBlocks, uid, value) {
				t.Fatalf("value %d finds no room", uid)
			}
			want = append(want, fmt.Sprintf("%d %09d", uid, uid))
		}
		if round == 0 {
			for ix.putCached("a", 1, imap.UID(len(ix.pending)), value) {
				if ix.pendingBytes > 2*indexPendingLimit {
					t.Fatal("there is always room")
				}
			}
		}
		if err := ix.savePending(); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if got := listCached(ix, "a", cacheBlocks); !slices.Equal(got, want) {
			t.Fatalf("%d values of %d", len(got), len(want))
		}
	}
	if st, err := os.Stat(ix.path); err != nil || st.Size() < 2*indexMapped {
		t.Fatalf("the file is too small for what is tested: %v %v", st, err)
	}
	err := ix.view(func(tx *bbolt.Tx) error {
		releaseMapped(tx)
		b, err := folderBucket(tx, "a", false)
		if err != nil {
			return err
		}
		if v, ok := checked(b.Bucket(bucketCache).Get(cacheDBKey(cacheBlocks, 301))); !ok || string(v[:9]) != "000000301" {
			t.Errorf("%v after the pages were given back", ok)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestBlocksOutliveMessages removes a message under whose UID a block and an entry are kept.
func TestBlocksOutliveMessages(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := testDrop(t, s)
	defer d.Release()
	f := openFolder(t, d, "INBOX")
	defer f.Release()
	uid := appendText(t, f, "Subject: a\r\n\r\nx\r\n")
	appendText(t, f, "Subject: b\r\n\r\nx\r\n")
	for _, kind := range []CacheKind{cacheText, cacheTextBlock} {
		if !f.PutCached(kind, uid, []byte("value")) {
			t.Fatal("no room")
		}
	}
	d.flush()
	if _, _, err := f.Expunge([]imap.UID{uid}, false); err != nil {
		t.Fatal(err)
	}
	d.flush()
	if entries, blocks := valuesOf(f, cacheText), valuesOf(f, cacheTextBlock); entries != 0 || blocks != 1 {
		t.Errorf("%d entries and %d blocks are left", entries, blocks)
	}
	f.PutCached(cacheText, uid, []byte("value"))
	if n := valuesOf(f, cacheText); n != 0 {
		t.Errorf("%d entries of messages that are gone", n)
	}
}
