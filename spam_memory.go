package main

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"
)

// memo is what is remembered of one thing.
type memo struct {
	when uint32 // minutes since 1970
	what uint8
}

// memory remembers things by their hashes, a bounded number of them: the oldest are forgotten. Not safe for concurrent use.
type memory struct {
	limit int
	memos map[uint64]memo
}

// memoSize is the length of a memo on disk, in octets.
const memoSize = 8 + 4 + 1

func newMemory(limit int) *memory { return &memory{limit: limit, memos: map[uint64]memo{}} }

// minutes gives a time as memos have it.
func minutes(t time.Time) uint32 { return uint32(t.Unix() / 60) }

// set remembers something. When there is no room, an eighth is forgotten.
func (m *memory) set(key uint64, one memo) {
	if _, there := m.memos[key]; !there && len(m.memos) >= m.limit {
		keys := make([]uint64, 0, len(m.memos))
		for key := range m.memos {
			keys = append(keys, key)
		}
		slices.SortFunc(keys, func(a, b uint64) int { return cmp.Compare(m.memos[a].when, m.memos[b].when) })
		for _, key := range keys[:max(1, len(keys)/8)] {
			delete(m.memos, key)
		}
	}
	m.memos[key] = one
}

// append appends all as it is kept on disk.
func (m *memory) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(m.memos)))
	for key, one := range m.memos {
		dst = appendMemo(dst, key, one)
	}
	return dst
}

func appendMemo(dst []byte, key uint64, one memo) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, key)
	return append(binary.LittleEndian.AppendUint32(dst, one.when), one.what)
}

func parseMemo(src []byte) (key uint64, one memo) {
	return binary.LittleEndian.Uint64(src), memo{binary.LittleEndian.Uint32(src[8:]), src[12]}
}

// parse reads what append wrote and gives what follows.
func (m *memory) parse(src []byte) (rest []byte, ok bool) {
	if len(src) < 4 {
		return nil, false
	}
	n := int64(binary.LittleEndian.Uint32(src))
	src = src[4:]
	if n > int64(m.limit) || n*memoSize > int64(len(src)) {
		return nil, false
	}
	for range n {
		key, one := parseMemo(src)
		m.memos[key] = one
		src = src[memoSize:]
	}
	return src, true
}
