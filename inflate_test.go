package main

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// pieceReader gives what it has and then errShortInput, as if a connection were silent.
type pieceReader struct{ data []byte }

func (r *pieceReader) Read(p []byte) (int, error) {
	n := copy(p, r.data)
	r.data = r.data[n:]
	if n == 0 {
		return 0, io.ErrNoProgress
	}
	return n, nil
}

// TestInflateFlushes reads what zlib flushed, all of it before the next piece is there.
func TestInflateFlushes(t *testing.T) {
	text, err := os.ReadFile("testdata/deflate/zlib.txt")
	if err != nil {
		t.Fatal(err)
	}
	var f *inflater
	var src *pieceReader
	name, pieces := "", 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if after, ok := strings.CutPrefix(line, "stream "); ok {
			src = &pieceReader{}
			name, f = after, newInflater(src)
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		plainText, packedText, _ := strings.Cut(line, " ")
		plain, err1 := base64.StdEncoding.DecodeString(plainText)
		data, err2 := base64.StdEncoding.DecodeString(packedText)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		src.data = data
		got := make([]byte, len(plain))
		if n, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%s: %d of %d bytes: %v", name, n, len(plain), err)
		}
		pieces++
	}
	if pieces < 100 {
		t.Errorf("%d pieces", pieces)
	}
}

// TestInflateStreams compares long streams of all kinds, however they come and however they are read.
func TestInflateStreams(t *testing.T) {
	rng := rand.New(rand.NewPCG(49, 78))
	plain := make([]byte, 0, 300<<10)
	for len(plain) < 300<<10 {
		if n := len(plain); n > 100 && rng.IntN(3) > 0 {
			from := max(0, n-1-rng.IntN(40<<10))
			plain = append(plain, plain[from:min(n, from+rng.IntN(400))]...)
			continue
		}
		for range rng.IntN(50) {
			plain = append(plain, byte(rng.IntN(256)))
		}
	}
	for level := flate.HuffmanOnly; level <= 9; level++ {
		var packed bytes.Buffer
		w, err := flate.NewWriter(&packed, level)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(plain)
		_ = w.Close()
		for i, src := range []io.Reader{bytes.NewReader(packed.Bytes()), iotest.OneByteReader(bytes.NewReader(packed.Bytes()))} {
			f := newInflater(src)
			var got []byte
			var err error
			for buf := make([]byte, 40<<10); err == nil; {
				var n int
				n, err = f.Read(buf[:1+rng.IntN(len(buf))])
				got = append(got, buf[:n]...)
			}
			if err != io.EOF || !bytes.Equal(got, plain) {
				t.Errorf("level %d, reader %d: %d of %d bytes, %v", level, i, len(got), len(plain), err)
			}
			if len(f.window) > inflateWindow {
				t.Errorf("the window has %d bytes", len(f.window))
			}
		}
	}
}

// TestInflateEmptyBlocks ends a stream in which nothing ever comes.
func TestInflateEmptyBlocks(t *testing.T) {
	empty := bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 100_000)
	f := newInflater(bytes.NewReader(empty))
	if n, err := f.Read(make([]byte, 10)); n != 0 || err != errDeflate {
		t.Errorf("%d, %v", n, err)
	}
}

// TestInflateWrap reads beyond what an int of 32 bits counts.
func TestInflateWrap(t *testing.T) {
	var packed bytes.Buffer
	w, _ := flate.NewWriter(&packed, 6)
	_, _ = w.Write([]byte("0123456789"))
	_, _ = w.Write(bytes.Repeat([]byte("abc"), 1000))
	_ = w.Close()
	f := newInflater(&packed)
	f.out, f.given = 1<<30-100, 1<<30-100
	f.window = make([]byte, inflateWindow)
	got, err := io.ReadAll(f)
	if err != nil || string(got) != "0123456789"+strings.Repeat("abc", 1000) || f.out > 1<<29+inflateWindow<<10 {
		t.Errorf("%d bytes, %v, out %d", len(got), err, f.out)
	}
}

func FuzzInflate(f *testing.F) {
	for _, plain := range []string{"", "a1 NOOP\r\n", strings.Repeat("a1 NOOP\r\n", 100)} {
		var packed bytes.Buffer
		w, _ := flate.NewWriter(&packed, 9)
		_, _ = w.Write([]byte(plain))
		_ = w.Close()
		f.Add(packed.Bytes())
	}
	f.Add([]byte{0xed, 0xfd, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 20
		got, err := io.ReadAll(io.LimitReader(newInflater(bytes.NewReader(data)), limit))
		want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), limit))
		if wantErr == nil && (err != nil || !bytes.Equal(got, want)) {
			t.Errorf("%d bytes and %v, not %d", len(got), err, len(want))
		}
		if !bytes.HasPrefix(got, want) && !bytes.HasPrefix(want, got) {
			t.Errorf("%q, not %q", got, want)
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	text := []byte(strings.Repeat(benchText(7)+benchText(123456), 100))
	var packed bytes.Buffer
	w, _ := flate.NewWriter(&packed, 6)
	_, _ = w.Write(text)
	_ = w.Flush()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := io.ReadFull(newInflater(bytes.NewReader(packed.Bytes())), text); err != nil {
			b.Fatal(err)
		}
	}
}
