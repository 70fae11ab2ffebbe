package main

// The page on which a person moves in from an old account.

func moveRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /mine/movein", who: forPerson, do: (*webRequest).movePage},
		{pattern: "POST /mine/movein", who: forPerson, do: (*webRequest).startMove, again: (*webRequest).movePage},
		{pattern: "POST /mine/movein/stop", who: forPerson, do: (*webRequest).stopMove, again: (*webRequest).movePage},
	}
}

// webMove is what movein.html shows.
type webMove struct {
	Job     *MoveJob // nil: there was none
	State   string   // key of the text for its state
	Running bool
	Percent int
	Done    int
	Of      int
}

func (q *webRequest) movePage() error {
	a, err := q.order(order{Do: "movein status", Address: q.user.Address})
	if err != nil {
		return err
	}
	data := webMove{}
	if len(a.Moves) > 0 {
		job := &a.Moves[0]
		data.Job, data.Running, data.Percent = job, job.State == MoveRunning, job.Percent()
		data.Done, data.Of, _ = job.Counts()
		switch {
		case job.State == MoveDone:
			data.State = "movein.state_done"
		case job.State == MoveStopped:
			data.State = "movein.state_stopped"
		case job.State == MoveFailed:
			data.State = "movein.state_failed"
		case job.Reason != "":
			data.State = "movein.state_waiting"
		default:
			data.State = "movein.state_running"
		}
	}
	return q.show("movein", data)
}

func (q *webRequest) startMove() error {
	server := OutsideServer{Protocol: protocolIMAP, Login: q.field("login")}
	password := q.r.PostForm.Get("password")
	if host := q.field("host"); host != "" {
		var err error
		if server.Host, server.Port, err = splitServer(host); err != nil {
			return q.wrong("movein.bad_host", host)
		}
	}
	server.Password = password
	named := server
	if named.Host == "" {
		named.Host = "found.later"
	}
	switch key, err := named.check(); {
	case err != nil && key == "login":
		return q.wrong("movein.no_login")
	case err != nil && key == "password":
		return q.wrong("movein.no_password")
	case err != nil:
		return q.wrong("movein.bad_host", q.field("host"))
	}
	if _, err := q.order(order{Do: "movein start", Address: q.user.Address, Source: &CollectSource{OutsideServer: server}, Password: password}); err != nil {
		return err
	}
	q.note("login", server.Login, "host", server.Host)
	return q.done("/mine/movein", "movein.started")
}

func (q *webRequest) stopMove() error {
	if _, err := q.order(order{Do: "movein stop", Address: q.user.Address}); err != nil {
		return err
	}
	return q.done("/mine/movein", "movein.stopped")
}
