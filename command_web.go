package main

// newPage makes the page that people see in a browser, at the ports that are open.
func (h *house) newPage(web *WebPorts, ad *admin, p *Protocols, ports []Port) (*Web, error) {
	return NewWeb(WebConfig{
		Accounts: h.accounts, Certificates: web.Certificates, Throttle: p.Throttle, Do: ad.perform, Codes: h.codes, Zone: h.zone,
		Checked: h.check.Last, Examine: h.check.Examine,
		Diary: h.diary, Token: h.metrics, Recent: h.recent.Last,
		MailSessions: p.Sessions, EndMail: p.EndSessions,
		Host: h.hostname, Ports: ports, Log: h.log,
		Secure: func() int { _, secure := web.Numbers(); return secure },
	})
}

// pageURL gives the address of the page, by the name of this machine; "" where its port is not open.
func (h *house) pageURL(web *WebPorts) string {
	_, secure := web.Numbers()
	return pageURL(h.hostname, secure)
}
