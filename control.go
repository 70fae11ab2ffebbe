package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Commands reach a running appliance over a port on the loopback address whose
// number lies in DATA/control.json with a secret that is new at each start:
// whoever can read that file may give orders. (A Unix socket would do the same
// where its path fits into some 100 bytes and Windows is new enough.) An order
// and its answer are a line of JSON each.

const (
	maxControlLine  = 1 << 20 // bytes
	controlTimeout  = 30 * time.Second
	controlAtOnce   = 4
	controlPatience = 5 * time.Second // for an appliance that is just starting or stopping
)

// controlFile is what DATA/control.json holds.
type controlFile struct {
	Address string `json:"address"`
	Secret  string `json:"secret"`
}

// controlOrder is the line a command sends.
type controlOrder struct {
	Secret string `json:"secret"`
	order
}

// controlServer takes orders while the appliance runs.
type controlServer struct {
	file     string
	secret   string
	listener net.Listener
	admin    *admin
	running  sync.WaitGroup
}

// openControl begins to listen and writes the file that tells where.
func openControl(file string, ad *admin) (*controlServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l, err = net.Listen("tcp", "[::1]:0")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the control port: %w", err)
	}
	s := &controlServer{file: file, secret: rand.Text(), listener: l, admin: ad}
	if err := writeJSON(file, controlFile{l.Addr().String(), s.secret}); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("writing the control file: %w", err)
	}
	s.running.Go(s.accept)
	return s, nil
}

// close ends the orders that run, and takes the file away.
func (s *controlServer) close() {
	_ = os.Remove(s.file)
	_ = s.listener.Close()
	s.running.Wait()
}

func (s *controlServer) accept() {
	slots := make(chan struct{}, controlAtOnce)
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of file descriptors, mostly
			continue
		}
		slots <- struct{}{}
		s.running.Go(func() {
			defer func() { <-slots }()
			s.serve(conn)
		})
	}
}

// serve takes one order. Without the secret there is no answer.
func (s *controlServer) serve(conn net.Conn) {
	defer conn.Close()
	// Local commands send at once; anyone else shall not hold a slot, nor the
	// shutdown, for long.
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	var o controlOrder
	line, err := bufio.NewReader(io.LimitReader(conn, maxControlLine)).ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &o) != nil {
		return
	}
	if subtle.ConstantTimeCompare([]byte(o.Secret), []byte(s.secret)) != 1 {
		return
	}
	a := s.admin.do(o.order)
	reply, err := json.Marshal(a)
	if err != nil {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(controlTimeout))
	if _, err := conn.Write(append(reply, '\n')); err != nil || a.list == nil {
		return
	}
	if a.list(conn) == nil {
		_, _ = conn.Write([]byte{listingEnd}) // nobody is told when it fails
	}
}

// listingEnd follows a listing that is whole.
const listingEnd = 0

// ask gives an order to the appliance that the control file tells of.
func ask(ctx context.Context, file string, o order) (answer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return answer{}, err
	}
	var where controlFile
	if err := json.Unmarshal(text, &where); err != nil {
		return answer{}, fmt.Errorf("reading the control file: %w", err)
	}
	dialer := net.Dialer{Timeout: controlTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", where.Address)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	line, err := json.Marshal(controlOrder{where.Secret, o})
	if err != nil {
		return answer{}, err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return answer{}, err
	}
	in := bufio.NewReader(conn)
	reply, err := in.ReadBytes('\n')
	if err != nil {
		return answer{}, errNoAnswer
	}
	var a answer
	if err := json.Unmarshal(reply, &a); err != nil {
		return answer{}, fmt.Errorf("reading the answer: %w", err)
	}
	if a.Listing {
		text, err := io.ReadAll(in)
		if err != nil || len(text) == 0 || text[len(text)-1] != listingEnd {
			return answer{}, errNoAnswer
		}
		a.text = text[:len(text)-1]
	}
	return a, nil
}

// errNoAnswer says that an order was sent, and maybe carried out.
var errNoAnswer = errors.New("the appliance that runs did not answer; look with a list command whether it was done")

// carryOut gives an order to whoever owns the data folder: to the appliance
// that runs, or else to this process, which then owns it for the moment.
// direct makes the admin for that; its close is called after the order.
func carryOut(ctx context.Context, data dataDir, o order, direct func() (*admin, func(), error)) (answer, error) {
	var problem error
	for end := time.Now().Add(controlPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		lock, err := data.tryLock()
		if err == nil {
			return carryOutHere(lock, o, direct)
		}
		if !errors.Is(err, errInUse) {
			return answer{}, err
		}
		var a answer
		if a, problem = ask(ctx, data.control(), o); problem == nil || errors.Is(problem, errNoAnswer) {
			return a, problem
		}
		if ctx.Err() != nil {
			return answer{}, context.Cause(ctx)
		}
	}
	return answer{}, fmt.Errorf("the appliance that runs with %s cannot be reached: %w", data, problem)
}

func carryOutHere(lock *dataLock, o order, direct func() (*admin, func(), error)) (answer, error) {
	defer lock.release()
	ad, done, err := direct()
	if err != nil {
		return answer{}, err
	}
	defer done()
	a := ad.do(o)
	if a.list != nil {
		var text bytes.Buffer
		err = a.list(&text)
		a.text = text.Bytes()
	}
	return a, err
}
