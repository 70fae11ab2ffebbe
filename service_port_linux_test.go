package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Whose a port is that is taken, and what ends that for good.
func TestPortHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	number := l.Addr().(*net.TCPAddr).Port
	program, _ := portHolder(number)
	if want := " (process " + strconv.Itoa(os.Getpid()) + ")"; !strings.HasSuffix(program, want) || program == want {
		t.Errorf("%q, want one that ends in %q", program, want)
	}
	c := &call{}
	c.opt.run.listen = "127.0.0.1"
	err = c.portIsFree(number, "smtp")
	if err == nil || !strings.HasPrefix(err.Error(), "port "+strconv.Itoa(number)+" (smtp) is in use by "+program+": end it") {
		t.Errorf("taken: %v", err)
	}
	l.Close()
	if program, unit := portHolder(number); program != "" || unit != "" {
		t.Errorf("nobody's: %q %q", program, unit)
	}
	if err := c.portIsFree(number, "smtp"); err != nil {
		t.Errorf("free: %v", err)
	}
	for _, test := range []struct{ program, groups, want string }{
		{"exim4", "0::/system.slice/exim4.service\n", "exim4"},
		{"master", "0::/system.slice/system-postfix.slice/postfix@-.service\n", "postfix"},
		{"nginx", "12:pids:/system.slice/nginx.service\n1:name=systemd:/system.slice/nginx.service\n", "nginx"},
		{"nginx", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n", ""},
		{"nginx", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n", ""},
		{"docker-proxy", "0::/system.slice/docker.service\n", ""},
		{"systemd", "0::/init.scope\n", ""},
		{"exim4", "", ""},
	} {
		if got := serviceOfGroup(test.program, test.groups); got != test.want {
			t.Errorf("%s in %q: %q, want %q", test.program, test.groups, got, test.want)
		}
	}
}
