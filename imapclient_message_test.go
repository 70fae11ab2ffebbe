package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// What the client library does with messages.

// clientFlags gives the flags of messages, sorted, as "1: \Seen, 2: ".
func clientFlags(msgs []*imapclient.FetchMessageBuffer) string {
	var lines []string
	for _, m := range msgs {
		flags := slices.DeleteFunc(slices.Sorted(slices.Values(m.Flags)), func(f imap.Flag) bool { return f == `\Recent` })
		line := fmt.Sprintf("%d:", m.UID)
		for _, f := range flags {
			line += " " + string(f)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ", ")
}

// flagsIn fetches the flags of all messages.
func (c *clientTest) flagsIn(client *imapclient.Client) string {
	c.Helper()
	msgs, err := via(c.k, client.Fetch)(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{UID: true, Flags: true}).Collect()
	c.check("FETCH", err)
	return clientFlags(msgs)
}

// messages are stored, flagged, copied, moved and removed, in the base protocol, in IMAP4rev2 and in UTF-8.
func (c *clientTest) messages() {
	client := c.login()
	if enable := map[string]imap.Cap{"rev2": imap.CapIMAP4rev2, "utf8": imap.CapUTF8Accept}[c.account()]; enable != "" {
		enabled, err := client.Enable(enable).Wait()
		c.check("ENABLE", err)
		same(c, "ENABLE", enabled.Caps, imap.CapSet{enable: {}})
	}
	c.check("CREATE", client.Create("Été", nil).Wait())
	received := time.Date(2020, 2, 29, 12, 30, 0, 0, time.FixedZone("", 3600))
	for i := range 8 {
		uid := c.append(client, "Été", fmt.Sprintf("Subject: message %d\r\n\r\nhello\r\n", i+1),
			&imap.AppendOptions{Flags: []imap.Flag{imap.FlagDraft, "$Label"}, Time: received.AddDate(0, 0, i)})
		same(c, "the UID", uid, imap.UID(i+1))
	}
	_, err := client.Select("Été", nil).Wait()
	c.check("SELECT", err)
	msgs, err := client.Fetch(imap.UIDSetNum(1, 8), &imap.FetchOptions{InternalDate: true, RFC822Size: true}).Collect()
	c.check("FETCH", err)
	same(c, "the messages", len(msgs), 2)
	same(c, "INTERNALDATE", msgs[1].InternalDate.Equal(received.AddDate(0, 0, 7)), true)
	same(c, "RFC822.SIZE", msgs[1].RFC822Size, 29)

	store := func(set imap.NumSet, op imap.StoreFlagsOp, silent bool, flags ...imap.Flag) string {
		c.Helper()
		msgs, err := via(c.k, client.Store)(set, &imap.StoreFlags{Op: op, Silent: silent, Flags: flags}, nil).Collect()
		c.check("STORE", err)
		return clientFlags(msgs)
	}
	same(c, "STORE +FLAGS", store(imap.UIDSetNum(1, 2), imap.StoreFlagsAdd, false, imap.FlagSeen), `1: $Label \Draft \Seen, 2: $Label \Draft \Seen`)
	same(c, "STORE -FLAGS", store(imap.UIDSetNum(1), imap.StoreFlagsDel, false, "$Label", imap.FlagSeen), `1: \Draft`)
	same(c, "STORE FLAGS", store(imap.UIDSetNum(2), imap.StoreFlagsSet, false, imap.FlagAnswered, "$Junk"), `2: $Junk \Answered`)
	same(c, "STORE .SILENT", store(imap.SeqSetNum(3, 4, 5, 6), imap.StoreFlagsAdd, true, imap.FlagDeleted), "")
	same(c, "the flags", c.flagsIn(client), `1: \Draft, 2: $Junk \Answered, 3: $Label \Deleted \Draft, 4: $Label \Deleted \Draft, `+
		`5: $Label \Deleted \Draft, 6: $Label \Deleted \Draft, 7: $Label \Draft, 8: $Label \Draft`)

	copied, err := via(c.k, client.Copy)(imap.SeqSetNum(1, 2), "Archive").Wait()
	c.check("COPY", err)
	same(c, "COPYUID", copied.SourceUIDs.String()+" to "+copied.DestUIDs.String(), "1:2 to 1:2")
	_, err = client.Copy(imap.UIDSetNum(1), "Nowhere").Wait()
	c.refused("COPY", err, imap.ResponseCodeTryCreate)
	moved, err := via(c.k, client.Move)(imap.UIDSetNum(1), "Archive").Wait()
	c.check("MOVE", err)
	same(c, "COPYUID", moved.SourceUIDs.String()+" to "+moved.DestUIDs.String(), "1 to 3")
	moved, err = client.Move(imap.SeqSetNum(1), "Archive").Wait()
	c.check("MOVE", err)
	same(c, "COPYUID", moved.SourceUIDs.String()+" to "+moved.DestUIDs.String(), "2 to 4")
	same(c, "the messages after MOVE", client.Mailbox().NumMessages, 6)
	gone, err := via(c.k, client.UIDExpunge)(imap.UIDSetNum(4, 5, 7)).Collect()
	c.check("UID EXPUNGE", err)
	slices.Sort(gone) // each counted when the others before it are gone
	same(c, "UID EXPUNGE", len(gone), 2)
	gone, err = via(c.k, client.Expunge)().Collect()
	c.check("EXPUNGE", err)
	same(c, "EXPUNGE", len(gone), 2)
	same(c, "the flags", c.flagsIn(client), `7: $Label \Draft, 8: $Label \Draft`)
	_, err = client.Select("Archive", nil).Wait()
	c.check("SELECT", err)
	same(c, "the flags of the copies", c.flagsIn(client), `1: \Draft, 2: $Junk \Answered, 3: \Draft, 4: $Junk \Answered`)
}

// clientLetter is a message with parts of several kinds.
const clientLetter = "From: =?utf-8?q?Zo=C3=AB?= <zoe@a.example>\r\nSender: s@a.example\r\nReply-To: r@a.example\r\n" +
	"To: Team: b@b.example, Cy <c@b.example>;\r\nCc: d@b.example\r\nBcc: e@b.example\r\nSubject: =?utf-8?q?=C3=89t=C3=A9?=\r\n" +
	"Date: Wed, 1 Jan 2020 10:00:00 +0100\r\nMessage-ID: <2@x>\r\nIn-Reply-To: <1@x>\r\nX-Other: yes\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Content-Transfer-Encoding: quoted-printable\r\nContent-Language: fr\r\n\r\n=C3=89t=C3=A9\r\n--b\r\n" +
	"Content-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <c@x>\r\n" +
	"Content-Description: bytes\r\nContent-Disposition: attachment; filename=\"a.bin\"\r\n\r\nAAEC/w==\r\n--b\r\n" +
	"Content-Type: message/rfc822\r\n\r\nSubject: inside\r\n\r\nhello\r\n--b--\r\n"

// fetch is FETCH of everything that the library can ask for.
func (c *clientTest) fetch() {
	client := c.login()
	c.append(client, "INBOX", clientLetter, nil)
	_, err := client.Select("INBOX", nil).Wait()
	c.check("SELECT", err)
	one := func(options *imap.FetchOptions) *imapclient.FetchMessageBuffer {
		c.Helper()
		msgs, err := via(c.k, client.Fetch)(imap.SeqSetNum(1), options).Collect()
		c.check("FETCH", err)
		if len(msgs) != 1 {
			c.Fatalf("%d messages", len(msgs))
		}
		return msgs[0]
	}
	head, _, _ := strings.Cut(clientLetter, "preamble")
	part := clientLetter[strings.Index(clientLetter, "Content-Type: application"):strings.Index(clientLetter, "AAEC")]
	sections := map[string]*imap.FetchItemBodySection{
		clientLetter:              {Peek: true},
		head:                      {Peek: true, Specifier: imap.PartSpecifierHeader},
		clientLetter[len(head):]:  {Peek: true, Specifier: imap.PartSpecifierText},
		"AAEC/w==":                {Peek: true, Part: []int{2}},
		part:                      {Peek: true, Part: []int{2}, Specifier: imap.PartSpecifierMIME},
		"Subject: inside\r\n\r\n": {Peek: true, Part: []int{3}, Specifier: imap.PartSpecifierHeader},
		clientLetter[100:140]:     {Peek: true, Partial: &imap.SectionPartial{Offset: 100, Size: 40}},
		"Cc: d@b.example\r\nX-Other: yes\r\n\r\n": {Peek: true, Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"X-Other", "CC"}},
		"Subject: =?utf-8?q?=C3=89t=C3=A9?=\r\n\r\n": {Peek: true, Specifier: imap.PartSpecifierHeader,
			HeaderFieldsNot: strings.Fields("From Sender Reply-To To Cc Bcc Date Message-ID In-Reply-To X-Other MIME-Version Content-Type")},
	}
	options := &imap.FetchOptions{UID: true, Flags: true, Envelope: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
		InternalDate: true, RFC822Size: true, ModSeq: true,
		BinarySection:     []*imap.FetchItemBinarySection{{Peek: true, Part: []int{1}}},
		BinarySectionSize: []*imap.FetchItemBinarySectionSize{{Part: []int{2}}}}
	for _, section := range sections {
		options.BodySection = append(options.BodySection, section)
	}
	m := one(options)
	for want, section := range sections {
		same(c, fmt.Sprintf("the section %+v", section), string(m.FindBodySection(section)), want)
	}
	same(c, "BINARY", string(m.FindBinarySection(options.BinarySection[0])), "Été")
	size, ok := m.FindBinarySectionSize([]int{2})
	same(c, "BINARY.SIZE", fmt.Sprint(size, ok), "4 true")
	same(c, "RFC822.SIZE", m.RFC822Size, int64(len(clientLetter)))
	same(c, "MODSEQ", m.ModSeq > 0 && m.UID == 1 && time.Since(m.InternalDate) < time.Hour, true)
	c.checkEnvelope(m.Envelope)
	c.checkStructure(m.BodyStructure)
	same(c, "the flags", clientFlags([]*imapclient.FetchMessageBuffer{m}), "1:") // nothing was read but peeked at
	_, extended := one(&imap.FetchOptions{BodyStructure: &imap.FetchItemBodyStructure{}}).BodyStructure.(*imap.BodyStructureMultiPart)
	same(c, "BODY", extended, true)
	one(&imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{Part: []int{1}}}})
	same(c, "the flags of what was read", c.flagsIn(client), `1: \Seen`)
}

func (c *clientTest) checkEnvelope(e *imap.Envelope) {
	c.Helper()
	same(c, "the date", e.Date.Equal(time.Date(2020, 1, 1, 9, 0, 0, 0, time.UTC)), true)
	same(c, "the subject", e.Subject, "Été")
	same(c, "the sender", e.From, []imap.Address{{Name: "Zoë", Mailbox: "zoe", Host: "a.example"}})
	same(c, "Sender", e.Sender[0].Addr()+" "+e.ReplyTo[0].Addr()+" "+e.Cc[0].Addr()+" "+e.Bcc[0].Addr(), "s@a.example r@a.example d@b.example e@b.example")
	same(c, "To", e.To, []imap.Address{{Mailbox: "Team"}, {Mailbox: "b", Host: "b.example"}, {Name: "Cy", Mailbox: "c", Host: "b.example"}, {}})
	same(c, "the ids", fmt.Sprintln(e.MessageID, e.InReplyTo), "2@x [1@x]\n")
}

func (c *clientTest) checkStructure(structure imap.BodyStructure) {
	c.Helper()
	multi, ok := structure.(*imap.BodyStructureMultiPart)
	if !ok || len(multi.Children) != 3 {
		c.Fatalf("BODYSTRUCTURE is %+v", structure)
	}
	same(c, "the multipart", fmt.Sprintln(multi.MediaType(), multi.Extended.Params), "multipart/mixed map[boundary:b]\n")
	text, file, inner := multi.Children[0].(*imap.BodyStructureSinglePart), multi.Children[1].(*imap.BodyStructureSinglePart), multi.Children[2].(*imap.BodyStructureSinglePart)
	same(c, "the text", fmt.Sprintln(text.MediaType(), text.Params, text.Encoding, text.Size, text.Text.NumLines, text.Extended.Language),
		"text/plain map[charset:utf-8] quoted-printable 13 0 [fr]\n")
	same(c, "the file", fmt.Sprintln(file.MediaType(), file.ID, file.Description, file.Filename(), file.Disposition().Value),
		"application/octet-stream <c@x> bytes a.bin attachment\n")
	same(c, "the message inside", fmt.Sprintln(inner.MediaType(), inner.MessageRFC822.Envelope.Subject, inner.MessageRFC822.BodyStructure.MediaType()),
		"message/rfc822 inside text/plain\n")
}

// search is SEARCH by every key that the library knows, with and without results to choose.
func (c *clientTest) search() {
	client := c.login()
	day := func(n int) time.Time { return time.Date(2020, 3, n, 0, 0, 0, 0, time.UTC) }
	for n, text := range []string{
		"From: ann@a.example\r\nTo: to@b.example\r\nCc: cc@b.example\r\nBcc: bcc@b.example\r\nSubject: plan\r\nX-Key: lock\r\n" +
			"Date: Sun, 1 Mar 2020 12:00:00 +0000\r\n\r\nhello world\r\n",
		"From: bob@a.example\r\nSubject: =?utf-8?q?=C3=89t=C3=A9?=\r\nDate: Mon, 2 Mar 2020 12:00:00 +0000\r\n\r\nhello\r\n",
		"From: cy@a.example\r\nSubject: long\r\nDate: Tue, 3 Mar 2020 12:00:00 +0000\r\n\r\n" + strings.Repeat("text\r\n", 500),
	} {
		flags := [][]imap.Flag{{imap.FlagSeen, "$Label"}, {imap.FlagAnswered, imap.FlagDraft}, {imap.FlagFlagged, imap.FlagDeleted}}[n]
		c.append(client, "INBOX", text, &imap.AppendOptions{Flags: flags, Time: day(n + 11)})
	}
	selected, err := client.Select("INBOX", nil).Wait()
	c.check("SELECT", err)
	header := func(key, value string) imap.SearchCriteria {
		return imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: key, Value: value}}}
	}
	for _, one := range []struct {
		criteria imap.SearchCriteria
		want     string
	}{
		{imap.SearchCriteria{}, "1:3"},
		{imap.SearchCriteria{SeqNum: []imap.SeqSet{{{Start: 2, Stop: 3}}}, UID: []imap.UIDSet{{{Start: 1, Stop: 2}}}}, "2"},
		{imap.SearchCriteria{Since: day(12)}, "2:3"}, {imap.SearchCriteria{Before: day(12)}, "1"},
		{imap.SearchCriteria{Since: day(12), Before: day(13)}, "2"},
		{imap.SearchCriteria{SentSince: day(2)}, "2:3"}, {imap.SearchCriteria{SentBefore: day(2)}, "1"},
		{imap.SearchCriteria{SentSince: day(2), SentBefore: day(3)}, "2"},
		{header("From", "bob"), "2"}, {header("To", "to@"), "1"}, {header("Cc", "cc@"), "1"}, {header("Bcc", "bcc@"), "1"},
		{header("Subject", "été"), "2"}, {header("X-Key", "lock"), "1"}, {header("X-Key", ""), "1"},
		{imap.SearchCriteria{Body: []string{"hello", "world"}}, "1"}, {imap.SearchCriteria{Text: []string{"bob@a.example"}}, "2"},
		{imap.SearchCriteria{Flag: []imap.Flag{imap.FlagSeen, "$Label"}}, "1"}, {imap.SearchCriteria{Flag: []imap.Flag{imap.FlagAnswered, imap.FlagDraft}}, "2"},
		{imap.SearchCriteria{Flag: []imap.Flag{imap.FlagFlagged, imap.FlagDeleted}}, "3"},
		{imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen, imap.FlagDeleted, "$Label"}}, "2"},
		{imap.SearchCriteria{Larger: 1000}, "3"}, {imap.SearchCriteria{Smaller: 1000}, "1:2"},
		{imap.SearchCriteria{Not: []imap.SearchCriteria{header("From", "bob")}}, "1,3"},
		{imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{header("From", "ann"), header("From", "cy")}}}, "1,3"},
		{imap.SearchCriteria{ModSeq: &imap.SearchCriteriaModSeq{ModSeq: selected.HighestModSeq}}, "3"},
		{imap.SearchCriteria{ModSeq: &imap.SearchCriteriaModSeq{ModSeq: 1, MetadataName: `/flags/\seen`, MetadataType: imap.SearchCriteriaMetadataAll}}, "1:3"},
	} {
		plain, err := via(c.k, client.Search)(&one.criteria, nil).Wait()
		c.check("SEARCH", err)
		same(c, fmt.Sprintf("SEARCH %+v", one.criteria), plain.All.String(), one.want)
		same(c, "MODSEQ is told", plain.ModSeq != 0, one.criteria.ModSeq != nil)
		byUID, err := via(c.k, client.UIDSearch)(&one.criteria, &imap.SearchOptions{ReturnMin: true, ReturnMax: true, ReturnAll: true, ReturnCount: true}).Wait()
		c.check("UID SEARCH", err)
		uids := byUID.AllUIDs()
		same(c, fmt.Sprintf("UID SEARCH %+v", one.criteria), byUID.All.String(), one.want)
		same(c, "the rest of ESEARCH", []uint32{byUID.Min, byUID.Max, byUID.Count}, []uint32{uint32(uids[0]), uint32(uids[len(uids)-1]), uint32(len(uids))})
	}
	criteria := header("From", "nobody")
	nothing, err := client.Search(&criteria, &imap.SearchOptions{ReturnAll: true, ReturnCount: true}).Wait()
	c.check("SEARCH", err)
	same(c, "SEARCH for nothing", fmt.Sprint(nothing.Count, nothing.All == nil), "0 true")
	none, err := client.Fetch(imap.SearchRes(), &imap.FetchOptions{Flags: true}).Collect()
	c.check("FETCH $", err)
	same(c, "what no search has saved", len(none), 0)
	_, err = client.Enable(imap.CapIMAP4rev2).Wait()
	c.check("ENABLE", err)
	criteria = header("Subject", "été")
	extended, err := client.Search(&criteria, nil).Wait()
	c.check("SEARCH", err)
	same(c, "SEARCH in IMAP4rev2", extended.All.String(), "2")
}

// order is SORT and THREAD.
func (c *clientTest) order() {
	client := c.login()
	for n, text := range []string{
		"From: zoe@a.example\r\nTo: b@b.example\r\nCc: m@m.example\r\nSubject: Plan\r\nDate: Wed, 1 Jan 2020 10:00:00 +0000\r\nMessage-ID: <1@x>\r\n\r\n" + strings.Repeat("x", 100),
		"From: ann@a.example\r\nTo: c@b.example\r\nCc: n@m.example\r\nSubject: re: [list] plan (fwd)\r\nDate: Wed, 1 Jan 2020 09:30:00 -0800\r\n" +
			"Message-ID: <2@x>\r\nIn-Reply-To: <1@x>\r\n\r\n" + strings.Repeat("x", 300),
		"From: bob@a.example\r\nTo: a@b.example\r\nCc: a@m.example\r\nSubject: Other\r\nDate: Wed, 1 Jan 2020 12:00:00 +0200\r\nMessage-ID: <3@x>\r\n\r\n" + strings.Repeat("x", 200),
		"From: cy@a.example\r\nTo: d@b.example\r\nCc: o@m.example\r\nSubject: Re: plan\r\nDate: Thu, 2 Jan 2020 10:00:00 +0000\r\n" +
			"Message-ID: <4@x>\r\nReferences: <1@x>\r\n\r\n" + strings.Repeat("x", 400),
	} {
		c.append(client, "INBOX", text, &imap.AppendOptions{Time: time.Date(2020, 1, 9-n, 0, 0, 0, 0, time.UTC)})
	}
	_, err := client.Select("INBOX", nil).Wait()
	c.check("SELECT", err)
	all := &imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagDeleted}}
	for key, want := range map[imapclient.SortKey][]uint32{
		imapclient.SortKeyArrival: {4, 3, 2, 1}, imapclient.SortKeyCc: {3, 1, 2, 4}, imapclient.SortKeyDate: {1, 3, 2, 4},
		imapclient.SortKeyFrom: {2, 3, 4, 1}, imapclient.SortKeySize: {1, 3, 2, 4}, imapclient.SortKeySubject: {3, 1, 2, 4}, imapclient.SortKeyTo: {3, 1, 2, 4},
	} {
		options := &imapclient.SortOptions{SearchCriteria: all, SortCriteria: []imapclient.SortCriterion{{Key: key}}}
		got, err := via(c.k, client.Sort)(options).Wait()
		c.check("SORT", err)
		same(c, "SORT by "+string(key), got, want)
		if key == imapclient.SortKeySubject || key == imapclient.SortKeyDate { // where some are equal, they stay in their order
			continue
		}
		options.SortCriteria = []imapclient.SortCriterion{{Key: key, Reverse: true}, {Key: imapclient.SortKeyArrival}}
		slices.Reverse(want)
		got, err = via(c.k, client.UIDSort)(options).Wait()
		c.check("UID SORT", err)
		same(c, "UID SORT by REVERSE "+string(key), got, want)
	}
	for algorithm, want := range map[imap.ThreadAlgorithm]string{
		imap.ThreadReferences: "[{[1] [{[2] []} {[4] []}]} {[3] []}]", imap.ThreadOrderedSubject: "[{[1] [{[2] []} {[4] []}]} {[3] []}]",
	} {
		options := &imapclient.ThreadOptions{Algorithm: algorithm, SearchCriteria: all}
		got, err := via(c.k, client.Thread)(options).Wait()
		c.check("THREAD", err)
		same(c, "THREAD "+string(algorithm), fmt.Sprint(got), want)
		got, err = via(c.k, client.UIDThread)(options).Wait()
		c.check("UID THREAD", err)
		same(c, "UID THREAD "+string(algorithm), fmt.Sprint(got), want)
	}
}

// modseq is CONDSTORE: what has changed since, and changes only of what has not.
func (c *clientTest) modseq() {
	client := c.login()
	for range 3 {
		c.append(client, "INBOX", "hello", nil)
	}
	selected, err := client.Select("INBOX", &imap.SelectOptions{CondStore: true}).Wait()
	c.check("SELECT", err)
	flag := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged}}
	msgs, err := client.Store(imap.UIDSetNum(2), flag, nil).Collect()
	c.check("STORE", err)
	if len(msgs) != 1 || msgs[0].ModSeq <= selected.HighestModSeq {
		c.Fatalf("STORE gives %+v, and the highest was %d", msgs, selected.HighestModSeq)
	}
	changed, err := via(c.k, client.Fetch)(imap.UIDSet{{Start: 1}}, &imap.FetchOptions{Flags: true, ChangedSince: selected.HighestModSeq}).Collect()
	c.check("FETCH", err)
	same(c, "CHANGEDSINCE", fmt.Sprint(clientFlags(changed), changed[0].ModSeq), fmt.Sprint(`2: \Flagged`, msgs[0].ModSeq))
	msgs, err = via(c.k, client.Store)(imap.UIDSetNum(1, 2), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagSeen}},
		&imap.StoreOptions{UnchangedSince: selected.HighestModSeq}).Collect()
	c.check("STORE", err)
	same(c, "UNCHANGEDSINCE", clientFlags(msgs), `1: \Seen`)
	same(c, "the flags", c.flagsIn(client), `1: \Seen, 2: \Flagged, 3:`)
}

// unasked is what is told in IDLE and with other commands when somebody else changes the mailbox.
func (c *clientTest) unasked() {
	news := make(chan string, 100)
	tell := func(handler, format string, args ...any) {
		c.k.note("UnilateralDataHandler." + handler)
		news <- fmt.Sprintf(format, args...)
	}
	client := c.dial(&imapclient.UnilateralDataHandler{
		Expunge: func(n uint32) { tell("Expunge", "expunge %d", n) },
		Fetch: func(data *imapclient.FetchMessageData) {
			m, err := data.Collect()
			tell("Fetch", "fetch %d %s %v", m.SeqNum, clientFlags([]*imapclient.FetchMessageBuffer{m}), err)
		},
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			switch {
			case data.NumMessages != nil:
				tell("Mailbox", "exists %d", *data.NumMessages)
			case data.PermanentFlags != nil:
				tell("Mailbox", "may have %v", data.PermanentFlags)
			default:
				tell("Mailbox", "has %v", data.Flags)
			}
		},
	})
	wants := func(want string) {
		c.Helper()
		select {
		case got := <-news:
			same(c, "what is told", got, want)
		case <-time.After(time.Minute):
			c.Fatalf("%s is not told", want)
		}
	}
	c.check("LOGIN", client.Login(c.account(), imapPassword).Wait())
	other := c.login()
	c.append(other, "INBOX", "one", nil)
	for _, one := range []*imapclient.Client{other, client} {
		_, err := one.Select("INBOX", nil).Wait()
		c.check("SELECT", err)
	}
	store := func(flag imap.Flag) {
		c.Helper()
		c.check("STORE", other.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{flag}}, nil).Close())
	}
	idle, err := via(c.k, client.Idle)()
	c.check("IDLE", err)
	c.append(other, "INBOX", "two", &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
	wants("exists 2")
	store("$New")
	flags := `\Answered \Flagged \Deleted \Seen \Draft $New`
	wants("has [" + flags + "]")
	wants("may have [" + flags + ` \*]`)
	wants("fetch 1 1: $New <nil>")
	c.check("MOVE", wait(other.Move(imap.SeqSetNum(1), "Trash")))
	wants("expunge 1")
	c.check("IDLE", idle.Close())
	c.check("IDLE", idle.Wait())
	same(c, "the mailbox", client.Mailbox().NumMessages, 1)
	store(imap.FlagFlagged)
	c.check("NOOP", client.Noop().Wait())
	wants(`fetch 1 2: \Flagged \Seen <nil>`)
	select {
	case more := <-news:
		c.Errorf("and %s", more)
	default:
	}
}
