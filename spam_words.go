package main

// What is learned of tokens: how many messages of each kind had them. The table is bounded; when it is full, what was seen
// once is forgotten first.

const (
	firstWordSlots = 1 << 12
	maxWordSlots   = 1 << 18 // 8 octets each
	maxWordCount   = 1<<16 - 1
)

// wordSlot counts one token. Key 0 is a slot that is free.
type wordSlot struct {
	key       uint32
	spam, ham uint16
}

// wordTable counts tokens by open addressing. Not safe for concurrent use.
type wordTable struct {
	slots []wordSlot // a power of two
	used  int
	limit int // of slots; 0: maxWordSlots
}

// find gives the slot of a token, or the free one where it would be. The table is never full.
func (t *wordTable) find(key uint32) *wordSlot {
	mask := uint32(len(t.slots) - 1)
	for i := key & mask; ; i = (i + 1) & mask {
		if s := &t.slots[i]; s.key == key || s.key == 0 {
			return s
		}
	}
}

// wordKey gives the key of a token in the eyes of a person, or (0) of the appliance.
func wordKey(token uint32, person uint64) uint32 {
	if person != 0 {
		token = uint32(mix64(uint64(token) ^ person))
	}
	return max(token, 1)
}

// counts gives how many messages of each kind had a token.
func (t *wordTable) counts(key uint32) (spam, ham int) {
	if len(t.slots) == 0 {
		return 0, 0
	}
	s := t.find(key)
	return int(s.spam), int(s.ham)
}

// add counts a message more (n is 1) or one less (-1) that has a token.
func (t *wordTable) add(key uint32, class spamClass, n int) {
	if t.used >= len(t.slots)*3/4 {
		t.makeRoom()
	}
	s := t.find(key)
	if s.key == 0 {
		if n < 0 {
			return // forgotten meanwhile
		}
		s.key = key
		t.used++
	}
	count := &s.ham
	if class == classSpam {
		count = &s.spam
	}
	*count = uint16(min(max(int(*count)+n, 0), maxWordCount))
}

// makeRoom doubles the table, or forgets the rarest tokens until half of it is free.
func (t *wordTable) makeRoom() {
	limit := t.limit
	if limit == 0 {
		limit = maxWordSlots
	}
	if len(t.slots) < limit {
		t.rebuild(max(2*len(t.slots), firstWordSlots), 0)
		return
	}
	for rarest := 1; t.used > len(t.slots)/2; rarest *= 2 {
		t.rebuild(len(t.slots), rarest)
	}
}

// rebuild makes a table of some size of the tokens that were counted more than rarest times.
func (t *wordTable) rebuild(size, rarest int) {
	old := t.slots
	t.slots, t.used = make([]wordSlot, size), 0
	for _, s := range old {
		if s.key != 0 && int(s.spam)+int(s.ham) > rarest {
			*t.find(s.key) = s
			t.used++
		}
	}
}
