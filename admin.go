package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// order is a change or a question about the accounts, the queue or the spam filter, as
// it goes from a command to whoever owns the data folder.
type order struct {
	Do       string   `json:"do"` // "user add" …, the words of the command
	Address  string   `json:"address,omitempty"`
	Name     string   `json:"name,omitempty"`     // a person's or an app password's
	Password string   `json:"password,omitempty"` // "": generate one
	To       []string `json:"to,omitempty"`       // of an alias
	Outside  string   `json:"outside,omitempty"`  // address elsewhere

	JSON  bool        `json:"json,omitempty"` // a listing is wanted in JSON
	ID    string      `json:"id,omitempty"`   // of a message that waits; "": all
	Quota QuotaChange `json:"quota,omitzero"`

	NoCopy bool      `json:"no_copy,omitempty"` // of what is forwarded
	Away   *AwayNote `json:"away,omitempty"`    // an out-of-office note

	Diagnosis *Diagnosis     `json:"diagnosis,omitempty"` // that a command has made
	Relay     *RelaySetting  `json:"relay,omitempty"`     // its port may be 0, and its password is in Password
	Source    *CollectSource `json:"source,omitempty"`    // its password is Password
	Change    CollectChange  `json:"change,omitzero"`     // of its options
	Host      string         `json:"host,omitempty"`      // of an account elsewhere
	Login     string         `json:"login,omitempty"`
	Mails     []TrainMail    `json:"mails,omitempty"`   // to learn
	Spam      bool           `json:"spam,omitempty"`    // they are unwanted
	Own       OwnFiles       `json:"own,omitzero"`      // of a certificate that a person brings
	OwnPEM    []byte         `json:"own_pem,omitempty"` // what is in them
}

// answer is what became of an order.
type answer struct {
	Error    string  `json:"error,omitempty"` // a sentence; "": done
	Address  string  `json:"address,omitempty"`
	Password string  `json:"password,omitempty"` // the one that was generated
	Path     string  `json:"path,omitempty"`     // where removed mail lies now
	Users    []User  `json:"users,omitempty"`
	Aliases  []Alias `json:"aliases,omitempty"`
	Header   string  `json:"header,omitempty"` // of a message that waits
	Count    int     `json:"count,omitempty"`  // messages that were changed

	Queue []QueueEntry `json:"queue,omitempty"` // the one that was asked for

	Relays  []RelaySetting  `json:"relays,omitempty"`
	Outside []OutsideReport `json:"outside,omitempty"`

	NewDomain string `json:"new_domain,omitempty"` // of the internet, whose mail stays here from now on

	// A listing may be long. It is written where it is made, and read once.
	Listing bool `json:"listing,omitempty"` // there is one
	list    func(w io.Writer) error
	text    []byte // the listing itself, where the answer has come to

	Facts        *DoctorFacts       `json:"facts,omitempty"`
	Spam         *SpamStatus        `json:"spam,omitempty"`
	Train        *TrainReport       `json:"train,omitempty"`
	Certificates []CertificateState `json:"certificates,omitempty"`

	Status *ServerStatus `json:"status,omitempty"`
	Text   string        `json:"text,omitempty"` // for a person

	Used  Quota `json:"used,omitzero"`  // what a maildrop holds
	Limit Quota `json:"limit,omitzero"` // what it may hold

	Logins   LastLogins    `json:"logins,omitzero"`
	Sessions []MailSession `json:"sessions,omitempty"`
	Moves    []MoveJob     `json:"moves,omitempty"`

	Sources []CollectReport `json:"sources,omitempty"`
	Changed bool            `json:"changed,omitempty"` // it was there already
	Running bool            `json:"running,omitempty"` // the order takes effect now
	Deletes bool            `json:"deletes,omitempty"` // it would delete what was to be kept elsewhere
}

// admin carries out orders. It is used by one process at a time, the owner of
// the data folder.
type admin struct {
	accounts  *Accounts
	store     *Store
	queue     func() (*Queue, error) // opens it, if it is not open
	facts     func() (*DoctorFacts, error)
	check     *DailyCheck
	relays    *Relays                     // nil: nothing is sent by one
	sender    *Sender                     // tries relays
	collector *Collector                  // nil: nothing is collected
	mover     *Mover                      // nil: nobody moves in
	spam      func() (*SpamFilter, error) // opens it, if it is not open
	tls       *tlsAdmin
	log       *slog.Logger
	codes     *OneTimeCodes
	page      func() string // the address of the page; nil: it is not to be had
	answered  *AwayMemory
	metrics   *MetricsToken

	// Of an appliance that runs:
	status       func() *ServerStatus
	firstAccount func(name string) (FirstAccount, error)
	sessions     []openSessions
	endSessions  func(account, via string, any bool) // of mail programs; nil: there are none
}

// do carries an order out.
func (ad *admin) do(o order) answer {
	a, err := ad.perform(o)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return a
}

func (ad *admin) perform(o order) (answer, error) {
	o.Address = ad.accounts.Complete(o.Address)
	switch o.Do {
	case "user add":
		return ad.addUser(o)
	case "user passwd":
		return ad.setPassword(o)
	case "user remove":
		return ad.removeUser(o)
	case "user rename":
		return ad.renameUser(o)
	case "user name":
		return answer{Address: o.Address}, ad.accounts.SetName(o.Address, o.Name)
	case "user disable", "user enable":
		return ad.disableUser(o, o.Do == "user disable")
	case "user two-factor remove":
		return answer{Address: o.Address}, ad.accounts.RemoveFactor(o.Address)
	case "user reset-link":
		return ad.resetLink(o)
	case "user logins":
		return ad.lastLogins(o)
	case "user quota":
		return ad.quota(o)
	case "user list":
		return answer{Users: ad.accounts.Users()}, nil
	case "user app-password add":
		password, err := ad.accounts.AddAppPassword(o.Address, o.Name)
		return answer{Address: o.Address, Password: password}, err
	case "user app-password remove":
		return ad.removeAppPassword(o)
	case "user app-password list":
		user, err := ad.accounts.User(o.Address)
		return answer{Users: []User{user}}, err
	case "alias add":
		return ad.addAlias(o)
	case "alias remove":
		return ad.removeAlias(o)
	case "alias list":
		return answer{Aliases: ad.accounts.Aliases()}, nil
	case "status", "first account":
		return ad.onServer(o)
	case "doctor facts":
		facts, err := ad.facts()
		return answer{Facts: facts}, err
	case "doctor learn":
		if o.Diagnosis != nil {
			ad.check.Learn(o.Diagnosis)
		}
		return answer{}, nil
	}
	if verb, ok := strings.CutPrefix(o.Do, "user sender "); ok {
		if a, known, err := ad.onOutside(verb, o); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "user away "); ok {
		if a, known, err := ad.onAway(verb, o); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "user forward "); ok {
		if a, known, err := ad.onForward(verb, o); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "sessions "); ok {
		if a, known, err := ad.onSessions(verb, o); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "movein "); ok {
		if a, known, err := ad.onMove(verb, o); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "metrics "); ok {
		if a, known, err := ad.onMetrics(verb); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "tls "); ok {
		if a, known, err := ad.tls.perform(verb, o); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "queue "); ok {
		if a, known, err := ad.onQueue(verb, o); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "relay "); ok {
		if a, known, err := ad.onRelay(verb, o); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "collect "); ok {
		if a, known, err := ad.onCollect(verb, o); known {
			return a, err
		}
	}
	if verb, ok := strings.CutPrefix(o.Do, "spam "); ok {
		if a, known, err := ad.onSpam(verb, o); known {
			return a, err
		}
	}
	return answer{}, fmt.Errorf("the appliance that runs does not know %q; it may be older than this one: restart it", o.Do)
}

// quota changes a quota, if there is something to change, and tells it and
// what is used of it.
func (ad *admin) quota(o order) (answer, error) {
	user, err := ad.accounts.User(o.Address)
	if err == nil && o.Quota != (QuotaChange{}) {
		user, err = ad.accounts.SetQuota(o.Address, o.Quota)
	}
	if err != nil {
		return answer{}, err
	}
	drop, err := ad.store.Maildrop(user.Address)
	if err != nil {
		return answer{}, err
	}
	defer drop.Release()
	used, err := drop.Usage()
	return answer{Address: user.Address, Used: used, Limit: drop.Limit()}, err
}

func (ad *admin) addAlias(o order) (answer, error) {
	for i := range o.To {
		o.To[i] = ad.accounts.Complete(o.To[i])
	}
	domain := ad.newDomain(o.Address)
	alias, err := ad.accounts.AddAlias(o.Address, o.To)
	return answer{Address: alias.Address, Aliases: []Alias{alias}, NewDomain: domain}, err
}

// newDomain gives the domain of an address that can be one on the internet and is not kept here so far, "" for others.
func (ad *admin) newDomain(address string) string {
	domain := normalDomain(domainOf(strings.TrimSpace(address)))
	if ad.accounts.IsLocalDomain(domain) || !isPublicName(domain) {
		return ""
	}
	return domain
}

// removeAlias removes an alias, or takes some out of it.
func (ad *admin) removeAlias(o order) (answer, error) {
	if len(o.To) == 0 {
		return answer{Address: o.Address}, ad.accounts.RemoveAlias(o.Address)
	}
	for i := range o.To {
		o.To[i] = ad.accounts.Complete(o.To[i])
	}
	alias, err := ad.accounts.RemoveFromAlias(o.Address, o.To)
	return answer{Address: alias.Address, Aliases: []Alias{alias}}, err
}
