package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// The networks that multicast DNS is for, and the sockets there.

// mdnsMost is the size of a packet in bytes (RFC 6762 §17).
const mdnsMost = 9000

// lanInterface is a network interface with its addresses there, which others on the network reach.
type lanInterface struct {
	net.Interface
	addrs []netip.Prefix
}

// lanInterfaces gives the interfaces to home networks: those with a private address that are no tunnels, and none of the
// networks that programs make for their containers and machines within this one. only, if it is valid, is the one address that
// is served.
func lanInterfaces(only netip.Addr) []lanInterface {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var found []lanInterface
	for _, i := range list {
		const needs = net.FlagUp | net.FlagMulticast
		if i.Flags&needs != needs || i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 || isInnerInterface(i.Name) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		if lan := lanAddresses(addrs, only); len(lan) > 0 {
			found = append(found, lanInterface{i, lan})
		}
	}
	return found
}

// lanAddresses gives those addresses of an interface that are of a home network. Link-local ones of IPv6 alone make none: every
// interface has one.
func lanAddresses(addrs []net.Addr, only netip.Addr) (list []netip.Prefix) {
	private := false
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits())
		ip := p.Addr()
		if only.IsValid() && ip != only.Unmap() || !ip.IsPrivate() && !ip.IsLinkLocalUnicast() {
			continue
		}
		private = private || ip.IsPrivate() || ip.Is4() || only.IsValid()
		list = append(list, p)
	}
	if !private {
		return nil
	}
	sortFunc(list, netip.Prefix.Compare)
	return list
}

// isInnerInterface recognizes by its name an interface that leads to no other device.
func isInnerInterface(name string) bool {
	name = strings.ToLower(name)
	for _, start := range []string{"docker", "veth", "br-", "virbr", "vnet", "lxc", "lxd", "cni", "flannel", "cali", "podman", "kube", "tailscale", "zt", "wg", "tun", "tap",
		"utun", "awdl", "llw", "vmnet", "vboxnet", "vethernet", "virtualbox", "vmware"} {
		if strings.HasPrefix(name, start) {
			return true
		}
	}
	return false
}

// lanKey tells one state of the networks from another.
func lanKey(list []lanInterface) string {
	var b strings.Builder
	for _, i := range list {
		fmt.Fprintf(&b, "%d %s %v\n", i.Index, i.Name, i.addrs)
	}
	return b.String()
}

// mdnsLink is a socket for one interface and one version of IP.
type mdnsLink struct {
	lanInterface
	conn  net.PacketConn
	group *net.UDPAddr
	read  func(b []byte) (n, index int, from net.Addr, err error) // index of the interface, 0: not known
	write func(b []byte, to net.Addr) (int, error)
}

// openLinks opens the sockets for an interface.
func openLinks(i lanInterface, port int) (links []*mdnsLink, err error) {
	for _, open := range []func(lanInterface, int) (*mdnsLink, error){openLink4, openLink6} {
		link, failed := open(i, port)
		if failed != nil {
			err = failed
		} else if link != nil {
			links = append(links, link)
		}
	}
	if len(links) > 0 {
		return links, nil
	}
	return nil, err
}

// has says whether the interface has an address of a version of IP.
func (i *lanInterface) has(v6 bool) bool {
	return slices.ContainsFunc(i.addrs, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 })
}

// listenGroup binds the group, where the system lets one: packets for this machine alone then reach the program whose socket is
// bound to all addresses, such as Avahi's.
func listenGroup(network string, group *net.UDPAddr) (net.PacketConn, error) {
	config := net.ListenConfig{Control: shareAddress}
	address := group.String()
	if !bindsGroups {
		address = ":" + strconv.Itoa(group.Port)
	}
	return config.ListenPacket(context.Background(), network, address)
}

func openLink4(i lanInterface, port int) (*mdnsLink, error) {
	if !i.has(false) {
		return nil, nil
	}
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: port}
	conn, err := listenGroup("udp4", group)
	if err != nil {
		return nil, err
	}
	p := ipv4.NewPacketConn(conn)
	err = p.JoinGroup(&i.Interface, group)
	if err == nil {
		err = p.SetMulticastInterface(&i.Interface)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = p.SetMulticastTTL(255)       // RFC 6762 §11; others are as good
	_ = p.SetMulticastLoopback(true) // for programs on this machine
	_ = p.SetControlMessage(ipv4.FlagInterface, true)
	return &mdnsLink{lanInterface: i, conn: conn, group: group, write: conn.WriteTo, read: func(b []byte) (int, int, net.Addr, error) {
		n, about, from, err := p.ReadFrom(b)
		if about == nil {
			return n, 0, from, err
		}
		return n, about.IfIndex, from, err
	}}, nil
}

func openLink6(i lanInterface, port int) (*mdnsLink, error) {
	if !i.has(true) {
		return nil, nil
	}
	group := &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: port, Zone: i.Name}
	conn, err := listenGroup("udp6", group)
	if err != nil {
		return nil, err
	}
	p := ipv6.NewPacketConn(conn)
	err = p.JoinGroup(&i.Interface, group)
	if err == nil {
		err = p.SetMulticastInterface(&i.Interface)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = p.SetMulticastHopLimit(255)
	_ = p.SetMulticastLoopback(true)
	_ = p.SetControlMessage(ipv6.FlagInterface, true)
	return &mdnsLink{lanInterface: i, conn: conn, group: group, write: conn.WriteTo, read: func(b []byte) (int, int, net.Addr, error) {
		n, about, from, err := p.ReadFrom(b)
		if about == nil {
			return n, 0, from, err
		}
		return n, about.IfIndex, from, err
	}}, nil
}

// near says whether an address is on the network of the link: others are not answered (RFC 6762 §11).
func (l *mdnsLink) near(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsLinkLocalUnicast() || slices.ContainsFunc(l.addrs, func(p netip.Prefix) bool { return p.Masked().Contains(a) })
}
