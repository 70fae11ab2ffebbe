package main

import (
	"net"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/windows"
)

// systemResolvers asks Windows for the resolvers of all adapters that are up.
func systemResolvers() (servers []string, trusted bool) {
	size := uint32(16 << 10)
	var first *windows.IpAdapterAddresses
	for range 3 { // the list may grow between two calls
		buf := make([]byte, size)
		first = (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0]))
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, windows.GAA_FLAG_SKIP_ANYCAST|windows.GAA_FLAG_SKIP_MULTICAST, 0, first, &size)
		if err == nil {
			break
		}
		if first = nil; err != windows.ERROR_BUFFER_OVERFLOW {
			return nil, false
		}
	}
	for a := first; a != nil; a = a.Next {
		if a.OperStatus != windows.IfOperStatusUp {
			continue
		}
		for d := a.FirstDnsServerAddress; d != nil; d = d.Next {
			addr, ok := netip.AddrFromSlice(d.Address.IP())
			if !ok || siteLocal.Contains(addr) {
				continue
			}
			if server := net.JoinHostPort(addr.Unmap().String(), "53"); !slices.Contains(servers, server) {
				servers = append(servers, server)
			}
		}
	}
	return servers, false
}

// siteLocal are the addresses that Windows makes up for adapters without a resolver.
var siteLocal = netip.MustParsePrefix("fec0::/10")
