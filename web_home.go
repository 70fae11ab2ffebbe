package main

// The first page after the login, and the files that all pages need.

func homeRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /{$}", who: forPerson, do: (*webRequest).home},
		{pattern: "GET /static/{name}", do: (*webRequest).asset, raw: true},
	}
}

// webHome is what home.html shows.
type webHome struct {
	Servers []webServerLine
}

// webServerLine is one thing that a mail program asks for.
type webServerLine struct {
	Key         string // of its text
	Port, Other int    // with TLS from the start, and with STARTTLS
}

func (q *webRequest) home() error {
	data := webHome{Servers: []webServerLine{
		{"home.imap", q.port("imaps"), q.port("imap")},
		{"home.submission", q.port("submissions"), q.port("submission")},
		{"home.pop3", q.port("pop3s"), q.port("pop3")},
	}}
	return q.show("home", data)
}

// port gives the number of a port by its name, 0 where it is not open.
func (w *Web) port(name string) int {
	for _, p := range w.Ports {
		if p.Name == name {
			return p.Number
		}
	}
	return 0
}
