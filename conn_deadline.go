package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// deadlineConn is a network connection whose deadlines slide. It lies beneath
// TLS, so that they count what comes over the wire.
//
// A read waits for the next byte no longer than idle. From the first byte after
// the last thing that was sent to the client, a transfer runs: it may take Slack
// and then a second more for every MinRate bytes, so that a client that sends a
// byte a minute ends, and one on a slow link does not. A write gets the time
// limits.Write for every 16 KiB. Nothing goes on beyond end.
type deadlineConn struct {
	net.Conn
	limits connLimits

	certificate []byte // in DER, of the last TLS handshake, see servedCertificates; written and read by its session alone

	mu      sync.Mutex
	idle    time.Duration
	end     time.Time // zero: none
	started time.Time // of the transfer that is running, zero: none
	bytes   int64     // of it
	busy    bool      // the shutdown lets it finish
	closing bool
	cut     bool // nothing more is read
	eof     bool // the peer has ended its side, or is lost

	readEnd, writeEnd time.Time // the deadlines as they were last set
	closed            sync.Once
}

// writeChunk is how much has to be taken by the client within limits.Write.
const writeChunk = 16 << 10

func newDeadlineConn(c net.Conn, limits connLimits) *deadlineConn {
	return &deadlineConn{Conn: c, limits: limits}
}

func (d *deadlineConn) setIdle(idle time.Duration) {
	d.mu.Lock()
	d.idle = idle
	d.mu.Unlock()
}

// setEnd sets the time at which all ends (zero: never) and gives the one before.
func (d *deadlineConn) setEnd(end time.Time) (before time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, d.end = d.end, end
	return before
}

func (d *deadlineConn) setBusy(on bool) {
	d.mu.Lock()
	d.busy = on
	d.mu.Unlock()
}

// shutdown makes the read that is waiting and all later ones fail with
// ErrShutdown, unless the connection is busy.
func (d *deadlineConn) shutdown() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closing = true
	if !d.busy {
		d.readEnd = time.Time{}
		_ = d.SetReadDeadline(time.Unix(1, 0)) // fails only when it is closed already
	}
}

// stopReading makes the read that is waiting and all later ones fail with
// net.ErrClosed. Writes go on.
func (d *deadlineConn) stopReading() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut, d.readEnd = true, time.Time{}
	_ = d.SetReadDeadline(time.Unix(1, 0)) // fails only when it is closed already
}

// startRead sets the deadline of the next read.
func (d *deadlineConn) startRead() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut {
		return net.ErrClosed
	}
	if d.closing && !d.busy {
		return ErrShutdown
	}
	deadline := time.Now().Add(d.idle)
	if !d.started.IsZero() {
		grace := d.limits.Slack + time.Duration(d.bytes/d.limits.MinRate)*time.Second
		deadline = earlier(deadline, d.started.Add(grace))
	}
	deadline = earlier(deadline, d.end)
	if slides(d.readEnd, deadline, d.idle) {
		return nil
	}
	d.readEnd = deadline
	return d.SetReadDeadline(deadline)
}

// slides says that a deadline that is set needs not be moved yet: moving one costs more than a short read, and a client's
// silence may end it up to a second, or a 64th of the limit, sooner.
func slides(set, deadline time.Time, limit time.Duration) bool {
	late := deadline.Sub(set)
	return !set.IsZero() && late >= 0 && late < min(time.Second, limit/64)
}

// earlier gives the earlier of two times; a zero end is none.
func earlier(t, end time.Time) time.Time {
	if !end.IsZero() && end.Before(t) {
		return end
	}
	return t
}

func (d *deadlineConn) Read(p []byte) (int, error) {
	if err := d.startRead(); err != nil {
		return 0, err
	}
	n, err := d.Conn.Read(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	if n > 0 {
		if d.started.IsZero() {
			d.started, d.bytes = time.Now(), 0
		}
		d.bytes += int64(n)
	}
	if err != nil {
		var ne net.Error
		timeout := errors.As(err, &ne) && ne.Timeout()
		d.eof = d.eof || !timeout
		switch {
		case timeout && d.cut:
			err = net.ErrClosed
		case timeout && d.closing && !d.busy:
			err = ErrShutdown
		}
	}
	return n, err
}

func (d *deadlineConn) Write(p []byte) (int, error) {
	written := 0
	for {
		if err := d.startWrite(); err != nil {
			return written, err
		}
		n, err := d.Conn.Write(p[written:min(len(p), written+writeChunk)])
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// startWrite sets the deadline of the next chunk and ends the transfer that was
// read: the client has its answer.
func (d *deadlineConn) startWrite() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.started = time.Time{}
	deadline := earlier(time.Now().Add(d.limits.Write), d.end)
	if slides(d.writeEnd, deadline, d.limits.Write) {
		return nil
	}
	d.writeEnd = deadline
	return d.SetWriteDeadline(deadline)
}

// Close closes the connection. A close with unread input would make the kernel
// reset it, and the client would lose the last reply; so our side is ended first
// and the rest is read for the time limits.Linger, 256 KiB at most.
func (d *deadlineConn) Close() error {
	err := net.ErrClosed
	d.closed.Do(func() {
		d.linger()
		err = d.Conn.Close()
	})
	return err
}

func (d *deadlineConn) linger() {
	half, ok := d.Conn.(interface{ CloseWrite() error })
	d.mu.Lock()
	eof := d.eof
	d.mu.Unlock()
	if !ok || eof || half.CloseWrite() != nil || d.SetReadDeadline(time.Now().Add(d.limits.Linger)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(d.Conn, 256<<10)) // it is thrown away; so is the error
}

// abort closes at once, whoever is reading or writing.
func (d *deadlineConn) abort() { _ = d.Conn.Close() }
