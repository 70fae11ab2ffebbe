package main

import "net/netip"

// announce tells the devices on the network where this machine is, and gives what ends that. Nil: somebody does not want it, or
// the appliance is there for this machine alone.
func (h *house) announce(listen string, ports []Port, certs *Certificates, page *Web) (end func()) {
	only, err := netip.ParseAddr(listen)
	if err == nil && only.IsLoopback() || h.settings.MDNS != nil && !*h.settings.MDNS {
		return nil
	}
	renamed := func(name string) {
		certs.Called(name)
		page.Called(name)
	}
	m := NewMDNS(MDNSConfig{Host: h.hostname, Ports: ports, Listen: listen, Renamed: renamed, Log: h.log})
	if m == nil {
		return nil
	}
	return inBackground(m.Run)
}
