package main

import (
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// What the client library asks of mailboxes as a whole.

// folders are made, renamed, selected, left and deleted.
func (c *clientTest) folders() {
	client := c.login()
	c.check("CREATE", via(c.k, client.Create)("Bücher/Été", nil).Wait())
	c.refused("CREATE", client.Create("Bücher/Été", nil).Wait(), imap.ResponseCodeAlreadyExists)
	c.append(client, "Bücher/Été", "Subject: one\r\n\r\nfirst\r\n", &imap.AppendOptions{Flags: []imap.Flag{imap.FlagDeleted, "$Label"}})
	c.append(client, "Bücher/Été", "Subject: two\r\n\r\nsecond\r\n", &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
	status, err := via(c.k, client.Status)("Bücher/Été", &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, NumUnseen: true,
		NumDeleted: true, Size: true, AppendLimit: true, DeletedStorage: true, HighestModSeq: true}).Wait()
	c.check("STATUS", err)
	selected, err := via(c.k, client.Select)("Bücher/Été", &imap.SelectOptions{ReadOnly: true, CondStore: true}).Wait()
	c.check("EXAMINE", err)
	limit, two, one, size, deleted := uint32(c.s.MaxSize), uint32(2), uint32(1), int64(47), int64(23)
	same(c, "STATUS", status, &imap.StatusData{Mailbox: "Bücher/Été", NumMessages: &two, UIDNext: 3, UIDValidity: selected.UIDValidity,
		NumUnseen: &one, NumDeleted: &one, Size: &size, AppendLimit: &limit, DeletedStorage: &deleted, HighestModSeq: selected.HighestModSeq})
	flags := []imap.Flag{imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagSeen, imap.FlagDraft, "$Label"}
	want := &imap.SelectData{Flags: flags, NumMessages: 2, UIDNext: 3, UIDValidity: selected.UIDValidity, HighestModSeq: selected.HighestModSeq}
	same(c, "EXAMINE", selected, want)
	same(c, "the mailbox", via(c.k, client.Mailbox)(), &imapclient.SelectedMailbox{Name: "Bücher/Été", NumMessages: 2, Flags: flags})
	c.check("UNSELECT", via(c.k, client.Unselect)().Wait())
	c.inState(client, imap.ConnStateAuthenticated)
	same(c, "no mailbox is selected", client.Mailbox() == nil, true)

	c.check("RENAME", via(c.k, client.Rename)("Bücher", "Livres", &imap.RenameOptions{}).Wait())
	c.refused("SELECT", wait(client.Select("Bücher/Été", nil)), imap.ResponseCodeNonExistent)
	selected, err = client.Select("Livres/Été", nil).Wait()
	c.check("SELECT", err)
	want.PermanentFlags = append(slices.Clone(flags), imap.FlagWildcard)
	same(c, "SELECT", selected, want)
	c.check("CLOSE", via(c.k, client.UnselectAndExpunge)().Wait())
	status, err = client.Status("Livres/Été", &imap.StatusOptions{NumMessages: true}).Wait()
	c.check("STATUS", err)
	same(c, "the messages after CLOSE", *status.NumMessages, 1)
	c.check("DELETE", via(c.k, client.Delete)("Livres/Été").Wait())
	c.refused("DELETE", client.Delete("Livres/Été").Wait(), imap.ResponseCodeNonExistent)
	c.refused("APPEND", c.appendTo(client, "Livres/Été", 3), imap.ResponseCodeTryCreate)
	c.refused("APPEND", c.appendTo(client, "INBOX", int(c.s.MaxSize)+1), imap.ResponseCodeTooBig)
}

// wait gives the error of a command.
func wait[T any](cmd interface{ Wait() (T, error) }) error {
	_, err := cmd.Wait()
	return err
}

// appendTo is an APPEND that may fail.
func (c *clientTest) appendTo(client *imapclient.Client, mailbox string, size int) error {
	cmd := client.Append(mailbox, int64(size), nil)
	_, _ = cmd.Write([]byte(strings.Repeat("x", size))) // the reply tells why
	_ = cmd.Close()
	return wait(cmd)
}

// listed gives a line for each mailbox of LIST.
func (c *clientTest) listed(cmd *imapclient.ListCommand) string {
	c.Helper()
	list, err := cmd.Collect()
	c.check("LIST", err)
	var lines []string
	for _, data := range list {
		line := data.Mailbox
		for _, attr := range data.Attrs {
			line += " " + string(attr)
		}
		if data.ChildInfo != nil && data.ChildInfo.Subscribed {
			line += " with subscribed ones below"
		}
		if data.Status != nil {
			line += " " + strings.Repeat("*", int(*data.Status.NumMessages))
		}
		if data.Delim != '/' {
			line += " separated otherwise"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ", ")
}

// list is LIST with its options, and SUBSCRIBE.
func (c *clientTest) list() {
	client := c.login()
	c.check("CREATE", client.Create("Été/Mai", nil).Wait())
	c.check("CREATE", via(c.k, client.Create)("Été/Mine", &imap.CreateOptions{SpecialUse: []imap.MailboxAttr{imap.MailboxAttrArchive}}).Wait())
	c.append(client, "Été/Mai", "hello", nil)
	c.check("SUBSCRIBE", via(c.k, client.Subscribe)("Été/Mai").Wait())
	c.check("SUBSCRIBE", client.Subscribe("Été/Mine").Wait())
	c.check("UNSUBSCRIBE", via(c.k, client.Unsubscribe)("Été/Mine").Wait())
	for _, one := range []struct {
		ref, pattern string
		options      *imap.ListOptions
		want         string
	}{
		{"", "Ét*", nil, `Été \NonExistent \Noselect \HasChildren, Été/Mai \HasNoChildren, Été/Mine \HasNoChildren \Archive`},
		{"Été/", "%", nil, `Été/Mai \HasNoChildren, Été/Mine \HasNoChildren \Archive`},
		{"", "É%", &imap.ListOptions{SelectSubscribed: true, SelectRecursiveMatch: true},
			`Été \NonExistent \Noselect \HasChildren with subscribed ones below`},
		{"", "É*", &imap.ListOptions{SelectSubscribed: true, SelectRemote: true}, `Été/Mai \HasNoChildren \Subscribed`},
		{"", "É*", &imap.ListOptions{SelectSpecialUse: true}, `Été/Mine \HasNoChildren \Archive`},
		{"", "É*", &imap.ListOptions{ReturnSubscribed: true, ReturnChildren: true, ReturnSpecialUse: true,
			ReturnStatus: &imap.StatusOptions{NumMessages: true}},
			`Été \NonExistent \Noselect \HasChildren, Été/Mai \HasNoChildren \Subscribed *, Été/Mine \HasNoChildren \Archive `},
	} {
		got := c.listed(via(c.k, client.List)(one.ref, one.pattern, one.options))
		if !strings.EqualFold(got, one.want) {
			c.Errorf("LIST %+v is %s, and should be %s", one.options, got, one.want)
		}
	}
	wait(client.Enable(imap.CapIMAP4rev2))
	selected, err := client.Select("Été/Mai", nil).Wait()
	c.check("SELECT", err)
	if selected.List == nil || selected.List.Mailbox != "Été/Mai" {
		c.Errorf("SELECT in IMAP4rev2 lists %+v", selected.List)
	}
}

// rights are given to somebody else, who uses them.
func (c *clientTest) rights() {
	mustAdd(c, c.s.Accounts, "peer@home.lan", imapPassword)
	client, peer := c.login(), c.dial(nil)
	c.check("LOGIN", peer.Login("peer", imapPassword).Wait())
	c.check("CREATE", client.Create("Été", nil).Wait())
	mine, err := via(c.k, client.MyRights)("Été").Wait()
	c.check("MYRIGHTS", err)
	same(c, "MYRIGHTS", string(mine.Rights), "lrwstipekxacd")
	set := func(how imap.RightModification, rights string) {
		c.Helper()
		c.check("SETACL", via(c.k, client.SetACL)("Été", "peer", how, imap.RightSet(rights)).Wait())
	}
	of := func(identifier imap.RightsIdentifier) string {
		c.Helper()
		acl, err := via(c.k, client.GetACL)("Été").Wait()
		c.check("GETACL", err)
		same(c, "GETACL's mailbox", acl.Mailbox, "Été")
		same(c, "the owner's rights", string(acl.Rights["rights@home.lan"]), "lrwstipekxacd")
		return string(acl.Rights[identifier])
	}
	const shared = othersPrefix + "rights/Été"
	c.refused("SELECT", wait(peer.Select(shared, nil)), imap.ResponseCodeNonExistent)
	set(imap.RightModificationReplace, "lr")
	same(c, "GETACL", of("peer@home.lan"), "lr")
	set(imap.RightModificationAdd, "is")
	same(c, "GETACL", of("peer@home.lan"), "lrsi")
	set(imap.RightModificationRemove, "s")
	same(c, "GETACL", of("peer@home.lan"), "lri")
	mine, err = peer.MyRights(shared).Wait()
	c.check("MYRIGHTS", err)
	same(c, "MYRIGHTS of the peer", string(mine.Rights), "lri")
	same(c, "LIST of the peer", c.listed(peer.List("", shared, nil)), shared+` \HasNoChildren`)
	c.append(peer, shared, "Subject: for you\r\n\r\nhello\r\n", nil)
	selected, err := peer.Select(shared, nil).Wait()
	c.check("SELECT", err)
	same(c, "the peer's messages", selected.NumMessages, 1)
	c.refused("STORE", peer.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged}}, nil).Close(),
		imap.ResponseCodeNoPerm)
	c.refused("SETACL", peer.SetACL(shared, "peer", imap.RightModificationAdd, imap.RightSetAll).Wait(), imap.ResponseCodeNoPerm)
	c.refused("GETACL", wait(peer.GetACL(shared)), imap.ResponseCodeNoPerm)
	c.refused("SETACL", client.SetACL("Été", "nobody", imap.RightModificationAdd, imap.RightSetAll).Wait(), imap.ResponseCodeCannot)
}

// annotations are METADATA, of a mailbox and of the server.
func (c *clientTest) annotations() {
	client := c.login()
	c.check("CREATE", client.Create("Été", nil).Wait())
	const long = "two lines,\r\none of them \"Été\""
	value := func(text string) *[]byte { b := []byte(text); return &b }
	for _, mailbox := range []string{"Été", ""} {
		if mailbox != "" {
			c.check("SETMETADATA", via(c.k, client.SetMetadata)(mailbox, map[string]*[]byte{"/shared/comment": value("ours")}).Wait())
		}
		c.check("SETMETADATA", client.SetMetadata(mailbox, map[string]*[]byte{
			"/private/vendor/test/x": value(long), "/private/vendor/test/x/y": value("y"), "/private/vendor/test/x/y/z": value("z"), "/private/vendor/test/old": value("old")}).Wait())
		c.check("SETMETADATA", client.SetMetadata(mailbox, map[string]*[]byte{"/private/vendor/test/old": nil}).Wait())
		get := func(options *imapclient.GetMetadataOptions, entries ...string) map[string]*[]byte {
			c.Helper()
			data, err := via(c.k, client.GetMetadata)(mailbox, entries, options).Wait()
			c.check("GETMETADATA", err)
			same(c, "GETMETADATA's mailbox", data.Mailbox, mailbox)
			return data.Entries
		}
		same(c, "GETMETADATA", get(nil, "/private/vendor/test/x", "/private/vendor/test/old"),
			map[string]*[]byte{"/private/vendor/test/x": value(long), "/private/vendor/test/old": nil})
		same(c, "DEPTH 1", get(&imapclient.GetMetadataOptions{Depth: imapclient.GetMetadataDepthOne}, "/private/vendor/test/x"),
			map[string]*[]byte{"/private/vendor/test/x": value(long), "/private/vendor/test/x/y": value("y")})
		most := uint32(10)
		same(c, "MAXSIZE", get(&imapclient.GetMetadataOptions{Depth: imapclient.GetMetadataDepthInfinity, MaxSize: &most}, "/private/vendor/test"),
			map[string]*[]byte{"/private/vendor/test/x/y": value("y"), "/private/vendor/test/x/y/z": value("z")})
		if mailbox != "" {
			same(c, "what is shared", get(nil, "/shared/comment"), map[string]*[]byte{"/shared/comment": value("ours")})
		}
	}
	c.refused("GETMETADATA", wait(client.GetMetadata("Nowhere", []string{"/private/x"}, nil)), imap.ResponseCodeNonExistent)
}

// quota is told, and cannot be changed.
func (c *clientTest) quota() {
	client := c.login()
	roots, err := via(c.k, client.GetQuotaRoot)("INBOX").Wait()
	c.check("GETQUOTAROOT", err)
	same(c, "the quota roots", len(roots), 0)
	c.refused("GETQUOTA", wait(via(c.k, client.GetQuota)("")), imap.ResponseCodeNonExistent)
	bytes, messages := int64(100<<10), int64(2)
	_, err = c.s.Accounts.SetQuota("quota@home.lan", QuotaChange{&bytes, &messages})
	c.check("setting a quota", err)
	c.append(client, "INBOX", strings.Repeat("x", 3000), nil)
	want := imapclient.QuotaData{Resources: map[imap.QuotaResourceType]imapclient.QuotaResourceData{
		imap.QuotaResourceStorage: {Usage: 3, Limit: 100}, imap.QuotaResourceMessage: {Usage: 1, Limit: 2}}}
	roots, err = client.GetQuotaRoot("INBOX").Wait()
	c.check("GETQUOTAROOT", err)
	same(c, "GETQUOTAROOT", roots, []imapclient.QuotaData{want})
	root, err := client.GetQuota("").Wait()
	c.check("GETQUOTA", err)
	same(c, "GETQUOTA", root, &want)
	c.refused("SETQUOTA", via(c.k, client.SetQuota)("", map[imap.QuotaResourceType]int64{imap.QuotaResourceMessage: 9}).Wait(), imap.ResponseCodeNoPerm)
	c.append(client, "INBOX", "the last one", nil)
	c.refused("APPEND", c.appendTo(client, "INBOX", 1), imap.ResponseCodeOverQuota)
}
