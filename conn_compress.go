package main

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"net"
)

// packed is the compression of a connection (RFC 4978): raw DEFLATE in both directions, above TLS.
type packed struct {
	in  *inflater
	out net.Conn
	env *connEnv
}

// packer compresses one piece of output. It takes some 0.8 MiB, so it is never held while a client is written to: there
// are as many as run at once, however many sessions are compressed and however slow their clients.
type packer struct {
	w   *flate.Writer
	buf bytes.Buffer
}

// Compress begins to compress both directions. As with StartTLS nothing may be buffered in either.
func (c *Conn) Compress() error {
	if c.packed != nil {
		return errors.New("compression is already active")
	}
	if c.peeked || c.r != nil && c.r.Buffered() > 0 || c.w != nil && c.w.Buffered() > 0 {
		return errors.New("data is buffered")
	}
	c.packed = &packed{in: newInflater(c.stream()), out: c.stream(), env: c.env}
	return nil
}

// Compressed says whether the connection is compressed.
func (c *Conn) Compressed() bool { return c.packed != nil }

// Write compresses b in pieces, each up to a boundary that the client can read to (RFC 4978 §4). A piece begins with an
// empty window, which costs little with 16 KiB and lets the packer go.
func (p *packed) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		piece := b[written:min(len(b), written+writerSize)]
		if _, err := p.out.Write(p.env.compress(piece)); err != nil {
			return written, err
		}
		written += len(piece)
	}
	return written, nil
}

// compress gives a piece in compressed form.
func (e *connEnv) compress(piece []byte) []byte {
	k, _ := e.packers.Get().(*packer)
	if k == nil {
		k = &packer{}
		k.w, _ = flate.NewWriter(io.Discard, flate.BestSpeed) // the level is a good one
	}
	defer e.packers.Put(k)
	k.buf.Reset()
	k.w.Reset(&k.buf)
	_, _ = k.w.Write(piece) // a bytes.Buffer takes everything
	_ = k.w.Flush()
	return bytes.Clone(k.buf.Bytes())
}
