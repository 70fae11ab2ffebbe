package main

// PARTIAL, RFC 9394: a window of the results of SEARCH, SORT and UID FETCH.

import (
	"strconv"

	"github.com/emersion/go-imap/v2"
)

// partialRange is a window: from the first result on, or from the last one back.
type partialRange struct {
	lo, hi uint32 // lo <= hi; the first is 1
	back   bool   // counted from the end
}

// partialRange parses n:m or -n:-m (RFC 9394 §4 partial-range).
func (c *imapCommand) partialRange() (*partialRange, error) {
	r := new(partialRange)
	var err error
	r.back = c.accept('-')
	if r.lo, err = c.nzNumber(); err != nil {
		return nil, err
	}
	if err := c.expect(':'); err != nil {
		return nil, err
	}
	if r.back {
		if err := c.expect('-'); err != nil {
			return nil, err
		}
	}
	if r.hi, err = c.nzNumber(); err != nil {
		return nil, err
	}
	if r.lo > r.hi {
		r.lo, r.hi = r.hi, r.lo
	}
	return r, nil
}

// of gives what of n results is in the window, as indexes.
func (r *partialRange) of(n int) (from, to int) {
	lo, hi := min(int64(r.lo)-1, int64(n)), min(int64(r.hi), int64(n))
	if r.back {
		lo, hi = int64(n)-hi, int64(n)-lo
	}
	return int(lo), int(hi)
}

// window gives what of n results PARTIAL asks for, nothing without it.
func (q *searchRequest) window(n int) (from, to int) {
	if q.partial == nil {
		return 0, 0
	}
	return q.partial.of(n)
}

// append appends the window as the client wrote it.
func (r *partialRange) append(b []byte) []byte {
	for i, n := range [...]uint32{r.lo, r.hi} {
		if i > 0 {
			b = append(b, ':')
		}
		if r.back {
			b = append(b, '-')
		}
		b = strconv.AppendUint(b, uint64(n), 10)
	}
	return b
}

// appendPartial appends PARTIAL (window set), NIL for an empty one (RFC 9394 §3.1).
func appendPartial(b []byte, r *partialRange, m *matcher) []byte {
	b = append(b, " PARTIAL ("...)
	b = append(r.append(b), ' ')
	if from, to := r.of(len(m.uids)); from < to {
		b = m.appendNumbers(b, from, to)
	} else {
		b = append(b, "NIL"...)
	}
	return append(b, ')')
}

// partialUIDs gives the window of UIDs; r may be nil.
func partialUIDs(r *partialRange, uids []imap.UID) []imap.UID {
	if r == nil {
		return uids
	}
	from, to := r.of(len(uids))
	return uids[from:to]
}
