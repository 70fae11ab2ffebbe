package main

// Choosing a new password by a link that works once.

func resetRoutes() []webRoute {
	return []webRoute{
		{pattern: "GET /reset", do: (*webRequest).resetPage},
		{pattern: "POST /reset", do: (*webRequest).reset, again: (*webRequest).resetForm},
	}
}

// resetData is what reset.html shows.
type resetData struct{ Code, Address string }

func (q *webRequest) resetPage() error {
	code := q.r.URL.Query().Get("code")
	u, err := q.userOfCode(codeReset, code)
	if err != nil {
		return err
	}
	return q.show("reset", resetData{code, u.Address})
}

// resetForm shows the form again.
func (q *webRequest) resetForm() error {
	return q.show("reset", resetData{q.field("code"), q.Codes.Account(codeReset, q.field("code"))})
}

// reset sets the password. Whoever has a second factor is asked for it at the login that follows.
func (q *webRequest) reset() error {
	u, err := q.userOfCode(codeReset, q.field("code"))
	if err != nil {
		return err
	}
	password, err := q.newPassword()
	if err != nil {
		return err
	}
	q.oneTime.Lock()
	defer q.oneTime.Unlock()
	if q.Codes.Account(codeReset, q.field("code")) != u.Address {
		return errWebCode
	}
	if err := q.Codes.Used(codeReset, u.Address); err != nil {
		return err
	}
	if _, err := q.order(order{Do: "user passwd", Address: u.Address, Password: password}); err != nil {
		return err
	}
	q.leave()
	q.session, q.user = nil, User{}
	q.note("address", u.Address)
	return q.show("resetdone", u.Address)
}
