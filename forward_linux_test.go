package main

import (
	"bufio"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestForwardWorld has mail of one appliance forwarded by another one to a third, where SPF, DKIM and DMARC are right, and a
// bounce come back all the way.
func TestForwardWorld(t *testing.T) {
	w := openMailWorld(t)
	one, two, three := w.appliance(2, "one.test", "ann"), w.appliance(3, "two.test", "bob"), w.appliance(4, "three.test", "cat")
	mustRun(t, two.data, "user", "forward", "bob@two.test", "cat@three.test", "--no-copy")
	one.submit(t, 2, "ann@one.test", "bob@two.test", "forwarded")
	text := three.arrival(t, "cat@three.test", "Subject: forwarded", "Delivered-To: bob@two.test")
	passed(t, text, "one.test")
	path := regexp.MustCompile(`Return-Path: <(SRS0=[^>]+@two\.test)>`).FindStringSubmatch(text)
	if path == nil { // and SPF has passed for it
		t.Fatalf("the sender is not rewritten:\n%s", text)
	}

	conn, err := net.Dial("tcp", net.JoinHostPort(loopbackAddress(4), strconv.Itoa(587+three.offset)))
	if err != nil {
		t.Fatal(err)
	}
	bounceOver(t, conn, path[1])
	back := one.arrival(t, "ann@one.test", "Subject: it came back", "Return-Path: <>")
	if !strings.Contains(back, "by mx.two.test") {
		t.Errorf("another way back:\n%s", back)
	}
}

// bounceOver submits a report of cat's.
func bounceOver(t *testing.T, conn net.Conn, to string) {
	t.Helper()
	c := &rawClient{t, conn, bufio.NewReader(conn)}
	defer c.Close()
	c.send("EHLO x\r\nAUTH PLAIN " + encodeLine("{plain cat@three.test submit-secret}") + "\r\n")
	c.expect("220 ", "250 ", "235 ")
	c.send("MAIL FROM:<>\r\nRCPT TO:<" + to + ">\r\nDATA\r\n")
	c.expect("250 ", "250 ", "354 ")
	c.send("From: cat@three.test\r\nTo: " + to + "\r\nSubject: it came back\r\nAuto-Submitted: auto-replied\r\n\r\nThere is no room.\r\n.\r\n")
	c.expect("250 ")
}
