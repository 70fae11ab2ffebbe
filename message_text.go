package main

// Text as people read it: charsets, encoded words (RFC 2047), parameters in
// other charsets (RFC 2231), and the form in which texts are compared.

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	unicodetext "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"
)

// maxEncodedWord is how long an encoded word may be. RFC 2047 §2 allows 75 bytes;
// real mail has whole subjects in one.
const maxEncodedWord = 8 << 10

// decodeBuffer is how much text is decoded at a time, in bytes.
const decodeBuffer = 8 << 10

// lookUpCharset finds a charset by any of its names. ok is false where it is
// unknown; a nil decoder means UTF-8 or a part of it.
func lookUpCharset(name string) (e encoding.Encoding, ok bool) {
	name, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(name)), "*") // RFC 2231 §5: language
	switch name {
	case "", "utf-8", "utf8", "us-ascii", "ascii", "ansi_x3.4-1968", "x-unknown", "unknown-8bit":
		return nil, name != "x-unknown" && name != "unknown-8bit"
	case "utf-16": // RFC 2781 §4.3: big-endian unless it says otherwise
		return unicodetext.UTF16(unicodetext.BigEndian, unicodetext.UseBOM), true
	}
	if e, err := htmlindex.Get(name); err == nil && e != encoding.Replacement {
		return e, true
	}
	if e, err := ianaindex.MIME.Encoding(name); err == nil && e != nil {
		return e, true
	}
	if e, err := ianaindex.IANA.Encoding(name); err == nil && e != nil {
		return e, true
	}
	return nil, false
}

// newDecoder gives what turns text in the charset into valid UTF-8. What is not
// valid there, and 8-bit text of an unknown charset, is taken for windows-1252.
func newDecoder(charset string) transform.Transformer {
	if e, ok := lookUpCharset(charset); ok && e != nil {
		return e.NewDecoder()
	}
	return guessUTF8{}
}

// decodeCharset gives a short text in the charset as valid UTF-8.
func decodeCharset(charset string, b []byte) string {
	if isASCII(b) {
		if e, _ := lookUpCharset(charset); e == nil {
			return string(b)
		}
	}
	out, _, err := transform.Bytes(newDecoder(charset), b)
	if err != nil {
		out, _, _ = transform.Bytes(guessUTF8{}, b)
	}
	return string(out)
}

// isASCII says whether there is no byte beyond ASCII, and no escape that starts
// another charset.
func isASCII(b []byte) bool {
	const high = 0x8080808080808080
	if bytes.IndexByte(b, 0x1b) >= 0 {
		return false
	}
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b)&high != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// guessUTF8 passes UTF-8 and takes other bytes for windows-1252.
type guessUTF8 struct{ transform.NopResetter }

// Transform is transform.Transformer.
func (guessUTF8) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		r, n := utf8.DecodeRune(src[nSrc:])
		if r == utf8.RuneError && n <= 1 {
			if !atEOF && !utf8.FullRune(src[nSrc:]) {
				return nDst, nSrc, transform.ErrShortSrc
			}
			r, n = charmap.Windows1252.DecodeByte(src[nSrc]), 1
		}
		if nDst+utf8.RuneLen(r) > len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += utf8.EncodeRune(dst[nDst:], r)
		nSrc += n
	}
	return nDst, nSrc, nil
}

// decodeHeaderText gives the text of an unfolded header field with its encoded
// words decoded. Between two of them white space is dropped, and characters
// that are split over several words of one charset are put together.
func decodeHeaderText(s string) string {
	if !strings.Contains(s, "=?") {
		return decodeCharset("", []byte(s))
	}
	var out strings.Builder
	var run []byte // bytes of encoded words in runCharset that follow each other
	runCharset := ""
	flush := func() {
		out.WriteString(decodeCharset(runCharset, run))
		run = run[:0]
	}
	for s != "" {
		i := strings.Index(s, "=?")
		if i < 0 {
			break
		}
		charset, text, rest, ok := cutEncodedWord(s[i:])
		if !ok {
			i += 2
		}
		if plain := s[:i]; len(run) == 0 || !ok || strings.Trim(plain, " \t\r\n") != "" {
			flush()
			out.WriteString(decodeCharset("", []byte(plain)))
		}
		s = s[i:]
		if !ok {
			continue
		}
		if !strings.EqualFold(charset, runCharset) {
			flush()
			runCharset = charset
		}
		run = append(run, text...)
		s = rest
	}
	flush()
	out.WriteString(decodeCharset("", []byte(s)))
	return out.String()
}

// cutEncodedWord reads the encoded word that s begins with.
func cutEncodedWord(s string) (charset string, text []byte, rest string, ok bool) {
	word := s[:min(len(s), maxEncodedWord)]
	charset, word, ok = strings.Cut(word[2:], "?")
	if !ok || charset == "" || len(charset) > 64 || len(word) < 3 || word[1] != '?' {
		return "", nil, "", false
	}
	kind := lowerByte(word[0])
	end := strings.Index(word[2:], "?=")
	if end < 0 {
		return "", nil, "", false
	}
	raw := word[2 : 2+end]
	switch kind {
	case 'q':
		text = decodeQ(raw)
	case 'b':
		text, _ = io.ReadAll(&base64Reader{r: strings.NewReader(raw)})
	default:
		return "", nil, "", false
	}
	return charset, text, s[2+len(charset)+1+2+end+2:], true
}

// decodeQ decodes the Q encoding, RFC 2047 §4.2.
func decodeQ(s string) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '_':
			out = append(out, ' ')
		case s[i] == '=' && i+2 < len(s) && hexValue(s[i+1]) >= 0 && hexValue(s[i+2]) >= 0:
			out = append(out, byte(hexValue(s[i+1])<<4|hexValue(s[i+2])))
			i += 2
		default:
			out = append(out, s[i])
		}
	}
	return out
}

// hexValue gives a hexadecimal digit's value, -1 for another byte.
func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// decodeParams gives the values of the parameters that are encoded or split as
// RFC 2231 says, decoded and put together, with a space between them.
func decodeParams(params []mimeParam) string {
	var out strings.Builder
	var value []byte
	charset, base := "", ""
	flush := func() {
		if base != "" {
			out.WriteString(decodeCharset(charset, value))
			out.WriteByte(' ')
		}
		value, charset, base = value[:0], "", ""
	}
	for _, p := range params {
		name, _, split := strings.Cut(p.Name, "*")
		if !split {
			continue
		}
		text := p.Value
		if !strings.EqualFold(name, base) {
			flush()
			base = name
			if cs, rest, ok := strings.Cut(text, "'"); ok && strings.HasSuffix(p.Name, "*") {
				charset = cs
				_, text, _ = strings.Cut(rest, "'")
			}
		}
		if strings.HasSuffix(p.Name, "*") {
			text = decodePercent(text)
		}
		value = append(value, text...)
	}
	flush()
	return out.String()
}

// decodePercent decodes %XX.
func decodePercent(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && hexValue(s[i+1]) >= 0 && hexValue(s[i+2]) >= 0 {
			out = append(out, byte(hexValue(s[i+1])<<4|hexValue(s[i+2])))
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// appendFolded appends UTF-8 in the form in which texts are compared, which is
// close to i;unicode-casemap (RFC 5051): compatibility characters taken apart,
// case folded. Each character is folded by itself, so a text may be folded piece
// by piece.
func appendFolded(dst, text []byte) []byte {
	for len(text) > 0 {
		n := 0
		if dst, n = appendFoldedASCII(dst, text); n > 0 {
			text = text[n:]
			continue
		}
		r, n := utf8.DecodeRune(text)
		if d := norm.NFKD.Properties(text[:n]).Decomposition(); d != nil {
			for len(d) > 0 {
				r, size := utf8.DecodeRune(d)
				dst = appendFoldedRune(dst, r)
				d = d[size:]
			}
		} else {
			dst = appendFoldedRune(dst, r)
		}
		text = text[n:]
	}
	return dst
}

// appendFoldedASCII appends what text begins with of ASCII, folded, and tells how
// much that is. It takes eight bytes at a time.
func appendFoldedASCII(dst, text []byte) (folded []byte, n int) {
	const (
		high  = 0x8080808080808080
		fromA = 0x3f3f3f3f3f3f3f3f // a byte plus this has its highest bit set from 'A' on
		pastZ = 0x2525252525252525 // and plus this behind 'Z'
	)
	dst = slices.Grow(dst, len(text))
	for ; n+8 <= len(text); n += 8 {
		w := binary.LittleEndian.Uint64(text[n:])
		if w&high != 0 {
			break
		}
		capitals := (w + fromA) &^ (w + pastZ) & high
		dst = binary.LittleEndian.AppendUint64(dst, w|capitals>>2)
	}
	for ; n < len(text) && text[n] < utf8.RuneSelf; n++ {
		dst = append(dst, lowerByte(text[n]))
	}
	return dst, n
}

// appendFoldedRune folds the case of one character.
func appendFoldedRune(dst []byte, r rune) []byte {
	if r == 'ß' || r == 'ẞ' {
		return append(dst, "ss"...)
	}
	return utf8.AppendRune(dst, unicode.ToLower(unicode.ToUpper(r)))
}

// textFinder looks for a text in others. It keeps its buffers from one to the
// next; not safe for concurrent use.
type textFinder struct {
	needle []byte // folded
	buf    []byte // a short text, folded
	tail   []byte // the end of the pieces so far, where the needle may begin
}

// newTextFinder looks for a text that is UTF-8.
func newTextFinder(text string) *textFinder {
	return &textFinder{needle: appendFolded(nil, []byte(text))}
}

// in says whether a short text has the one that is looked for.
func (f *textFinder) in(text []byte) bool {
	f.buf = appendFolded(f.buf[:0], text)
	return bytes.Contains(f.buf, f.needle)
}

// begin starts a text that comes in pieces.
func (f *textFinder) begin() { f.tail = f.tail[:0] }

// next says whether the text has it as far as its next piece, which is folded.
func (f *textFinder) next(folded []byte) bool {
	if bytes.Contains(folded, f.needle) {
		return true
	}
	keep := max(0, len(f.needle)-1)
	seam := len(f.tail) > 0
	f.tail = append(f.tail, folded[:min(keep, len(folded))]...)
	if seam && bytes.Contains(f.tail, f.needle) {
		return true
	}
	if len(folded) > keep {
		f.tail = append(f.tail[:0], folded[len(folded)-keep:]...)
	} else if over := len(f.tail) - keep; over > 0 {
		f.tail = f.tail[:copy(f.tail, f.tail[over:])]
	}
	return false
}

// textFolder makes texts in any charset UTF-8 and folds them. It keeps its buffers
// from one to the next; not safe for concurrent use.
type textFolder struct {
	folded []byte
	utf8   []byte // decoded text
}

// stream gives a text in a charset folded to visit, piece by piece, until that
// returns false. Memory is bounded. scratch is where r is read to. The only errors
// are r's.
func (f *textFolder) stream(r io.Reader, charset string, scratch []byte, visit func(folded []byte) (more bool)) error {
	decoder := newDecoder(charset)
	have := 0
	for {
		n, err := r.Read(scratch[have:])
		have += n
		if err != nil && err != io.EOF {
			return err
		}
		used, more := f.piece(decoder, scratch[:have], err == io.EOF, visit)
		if !more || err == io.EOF {
			return nil
		}
		if used == 0 && have == len(scratch) { // no charset needs so much at a time
			return nil
		}
		have = copy(scratch, scratch[used:have])
	}
}

// piece folds what can be decoded of a piece, and tells how much of it was used.
// There is no more where visit has enough or the decoder gives up.
func (f *textFolder) piece(decoder transform.Transformer, raw []byte, atEOF bool, visit func(folded []byte) bool) (used int, more bool) {
	if _, guess := decoder.(guessUTF8); guess && isASCII(raw) {
		f.folded = appendFolded(f.folded[:0], raw)
		return len(raw), visit(f.folded)
	}
	if f.utf8 == nil {
		f.utf8 = make([]byte, decodeBuffer)
	}
	for {
		out, in, err := decoder.Transform(f.utf8, raw[used:], atEOF)
		used += in
		if f.folded = appendFolded(f.folded[:0], f.utf8[:out]); !visit(f.folded) {
			return used, false
		}
		switch {
		case err == transform.ErrShortDst && in+out > 0:
		case err == nil, err == transform.ErrShortSrc:
			return used, true
		default:
			return used, false
		}
	}
}
