package main

import (
	"fmt"
	"strings"
)

// words is what the owner is told of somebody who has reached the limit: which password was used, and what ends that.
func (r *FloodReport) words() string {
	account := quoteWord(r.Sender.Account)
	var shares, ends strings.Builder
	for _, s := range r.Shares {
		what, end := "the main password", fmt.Sprintf("a new main password:\n\n  appliance user passwd %s\n", account)
		if s.Via != "" {
			what = fmt.Sprintf("the app password %q", s.Via)
			end = fmt.Sprintf("no app password %q any more, so that the program or device that had it needs a new one:\n\n  appliance user app-password remove %s %s\n",
				s.Via, account, quoteWord(s.Via))
		}
		fmt.Fprintf(&shares, "  %d with %s\n", s.Recipients, what)
		fmt.Fprintf(&ends, "\n%s gets %s", r.Sender.Account, end)
	}
	from := ""
	if r.Sender.Remote.IsValid() {
		from = fmt.Sprintf("\nWho has just tried to go on comes from the address %s.\n", r.Sender.Remote)
	}
	return fmt.Sprintf(`%[1]s has written to %[2]d addresses elsewhere within an hour. That is the most
that is allowed; further mail to other servers is refused until the hour is over.
The addresses were written to by somebody who has logged in:

%[3]s%[4]s
If that was meant, nothing need be done. Somebody who writes to very many people can
have a higher limit: sends_per_hour in settings.toml.

If it was not meant, somebody else has a password. These commands end that, of which
the first is the one to begin with:
%[5]s
This lists what still waits to be sent:

  appliance queue list

and a message in that list is not sent after "appliance queue cancel" with the word
at the beginning of its line.
`, r.Sender.Account, r.PerHour, shares.String(), from, ends.String())
}
