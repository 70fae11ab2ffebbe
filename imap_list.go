package main

// What mailboxes there are: LIST with its extensions (RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154) and LSUB
// (RFC 3501 §6.3.9). The other commands on mailboxes are in imap_folder.go.

import (
	"errors"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// listRequest is a parsed LIST.
type listRequest struct {
	patterns []string // with the reference before them, in the session's spelling of names

	onlySubscribed, onlySpecial, recursive         bool // selection options
	showSubscribed, showStatus, extended, nameOnly bool // return options; nameOnly: LIST "" ""
	showRights                                     bool
	items                                          statusItems
	metadata                                       *metadataRequest // nil: not asked for
}

// list is LIST.
func (s *imapSession) list(cmd *imapCommand) error {
	req, err := s.parseList(cmd)
	if err != nil {
		return err
	}
	if req.nameOnly {
		s.line(`* LIST (\NoSelect) "/" ""`) // the root of all names, and the separator
		return nil
	}
	tree, err := s.folderTree()
	if err != nil {
		return err
	}
	for i := range tree {
		if err := s.listOne(req, tree, i); err != nil {
			return err
		}
	}
	return nil
}

// parseList parses the arguments of LIST (RFC 9051 §9 list).
func (s *imapSession) parseList(cmd *imapCommand) (*listRequest, error) {
	req := &listRequest{}
	if err := cmd.sp(); err != nil {
		return nil, err
	}
	if cmd.peek() == '(' {
		req.extended = true
		if err := req.parseSelection(cmd); err != nil {
			return nil, err
		}
		if err := cmd.sp(); err != nil {
			return nil, err
		}
	}
	ref, err := cmd.astring()
	if err != nil {
		return nil, err
	}
	if err := cmd.sp(); err != nil {
		return nil, err
	}
	if err := req.parsePatterns(cmd, ref); err != nil {
		return nil, err
	}
	if cmd.accept(' ') {
		req.extended = true
		if cmd.keyword() != "RETURN" {
			return nil, cmd.expected("RETURN")
		}
		if err := cmd.sp(); err != nil {
			return nil, err
		}
		if err := cmd.list(func() error { return req.parseReturn(cmd) }); err != nil {
			return nil, err
		}
	}
	return req, cmd.end()
}

// parseSelection parses the selection options (RFC 5258 §3.1).
func (req *listRequest) parseSelection(cmd *imapCommand) error {
	err := cmd.list(func() error {
		switch cmd.keyword() {
		case "SUBSCRIBED":
			req.onlySubscribed, req.showSubscribed = true, true
		case "SPECIAL-USE":
			req.onlySpecial = true
		case "RECURSIVEMATCH":
			req.recursive = true
		case "REMOTE": // there are none
		default:
			return imapBad("LIST has no such selection option")
		}
		return nil
	})
	if err == nil && req.recursive && !req.onlySubscribed && !req.onlySpecial {
		return imapBad("RECURSIVEMATCH needs another selection option") // RFC 5258 §3.1
	}
	return err
}

// parsePatterns parses the pattern, or the patterns in parentheses.
func (req *listRequest) parsePatterns(cmd *imapCommand, ref string) error {
	if cmd.peek() != '(' {
		pattern, err := cmd.listMailbox()
		req.patterns = []string{ref + pattern}
		req.nameOnly = pattern == ""
		return err
	}
	req.extended = true
	return cmd.list(func() error {
		pattern, err := cmd.listMailbox()
		req.patterns = append(req.patterns, ref+pattern)
		return err
	})
}

// parseReturn parses one return option. CHILDREN and SPECIAL-USE are told in any case.
func (req *listRequest) parseReturn(cmd *imapCommand) (err error) {
	switch cmd.keyword() {
	case "SUBSCRIBED":
		req.showSubscribed = true
	case "MYRIGHTS":
		req.showRights = true
	case "CHILDREN", "SPECIAL-USE":
	case "STATUS":
		req.showStatus = true
		if err := cmd.sp(); err != nil {
			return err
		}
		req.items, err = cmd.statusItems()
	case "METADATA":
		if err := cmd.sp(); err != nil {
			return err
		}
		req.metadata = &metadataRequest{maxSize: -1}
		err = req.metadata.parseEntries(cmd)
	default:
		return imapBad("LIST has no such return option")
	}
	return err
}

// treeNode is a mailbox, a parent that has only children, or a subscription without a mailbox.
type treeNode struct {
	name       string
	exists     bool
	children   bool // a mailbox below it exists
	subscribed bool
	use        []imap.MailboxAttr
	rights     Rights
	other      bool // it is other people's

	subscribedBelow, specialBelow bool // CHILDINFO
}

// buildTree joins folders and subscriptions to a list of all names and their parents.
func buildTree(folders []visibleFolder, subs []string) []*treeNode {
	nodes := map[string]*treeNode{}
	node := func(name string) *treeNode {
		n := nodes[name]
		if n == nil {
			n = &treeNode{name: name, other: strings.HasPrefix(name, othersPrefix)}
			nodes[name] = n
		}
		return n
	}
	for _, f := range folders {
		n := node(f.Name)
		n.exists, n.use, n.rights, n.other = true, f.SpecialUse, f.rights, f.other
		for parent := range parents(f.Name) {
			p := node(parent)
			p.children = true
			p.specialBelow = p.specialBelow || len(f.SpecialUse) > 0
		}
	}
	for _, name := range subs {
		node(name).subscribed = true
		for parent := range parents(name) {
			node(parent).subscribedBelow = true
		}
	}
	tree := make([]*treeNode, 0, len(nodes))
	for _, n := range nodes {
		tree = append(tree, n)
	}
	slices.SortFunc(tree, func(a, b *treeNode) int { return compareFolders(a.name, b.name) })
	return tree
}

// parents gives the names above a name.
func parents(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := len(name) - 1; i > 0; i-- {
			if name[i] == '/' && !yield(name[:i]) {
				return
			}
		}
	}
}

// compareFolders sorts INBOX first, and children behind their parent.
func compareFolders(a, b string) int {
	if inboxA, inboxB := a == "INBOX", b == "INBOX"; inboxA != inboxB {
		if inboxA {
			return -1
		}
		return 1
	}
	return strings.Compare(strings.ReplaceAll(a, "/", "\x01"), strings.ReplaceAll(b, "/", "\x01"))
}

// listOne answers for one name if it is asked for.
func (s *imapSession) listOne(req *listRequest, tree []*treeNode, i int) error {
	n := tree[i]
	if !req.selects(n) || !s.matchesAny(req.patterns, n.name) {
		return nil
	}
	s.writeList(req.attributes(n), n.name, req.childInfo(n))
	// RFC 5819 §4, RFC 9590 §4: there is nothing more to tell of what is listed only for its children's sake.
	if req.metadata != nil && n.exists && req.choosesItself(n) {
		s.listMetadata(n.name, req.metadata)
	}
	if req.showRights && n.exists && req.choosesItself(n) { // RFC 8440 §3
		s.myRightsLine(n.name, n.rights)
	}
	if req.showStatus && n.exists && req.choosesItself(n) {
		return s.listStatus(n.name, req.items)
	}
	return nil
}

// writeList writes a LIST response; extended are its extended data items with the space before them.
func (s *imapSession) writeList(attributes []string, name, extended string) {
	b := append([]byte(nil), "* LIST ("...)
	b = append(b, strings.Join(attributes, " ")...)
	b = append(b, `) "/" `...)
	b = appendMailbox(b, name, s.utf8)
	b = append(b, extended...)
	s.write(append(b, "\r\n"...))
}

// listStatus is the STATUS response that follows a LIST response (RFC 5819 §2): none when the mailbox has just gone, or may not
// be read.
func (s *imapSession) listStatus(name string, items statusItems) error {
	err := s.statusOf(name, items)
	if err != nil && !errors.Is(err, ErrNoFolder) && !errors.Is(err, ErrNoRight) {
		s.c.Log.Warn("no status for LIST", "error", err)
	}
	return nil
}

// selects says whether the selection options choose a name. Without any, all that exists is chosen, and parents of it.
func (req *listRequest) selects(n *treeNode) bool {
	if req.onlySubscribed || req.onlySpecial {
		return req.choosesItself(n) || req.childInfo(n) != ""
	}
	return n.exists || n.children
}

// choosesItself says whether the selection options choose a name for what it is, not for its children.
func (req *listRequest) choosesItself(n *treeNode) bool {
	return (!req.onlySubscribed || n.subscribed) && (!req.onlySpecial || len(n.use) > 0)
}

// childInfo is the extended data item of RECURSIVEMATCH (RFC 9051 §6.3.9.6): what a name's descendants are chosen for.
func (req *listRequest) childInfo(n *treeNode) string {
	if !req.recursive {
		return ""
	}
	var found []string
	if req.onlySubscribed && n.subscribedBelow {
		found = append(found, `"SUBSCRIBED"`)
	}
	if req.onlySpecial && n.specialBelow {
		found = append(found, `"SPECIAL-USE"`)
	}
	if found == nil {
		return ""
	}
	return ` ("CHILDINFO" (` + strings.Join(found, " ") + "))"
}

// attributes are a name's attributes. \NonExistent implies \NoSelect, which clients of RFC 3501 know.
func (req *listRequest) attributes(n *treeNode) []string {
	var attrs []string
	if !n.exists {
		attrs = append(attrs, `\NonExistent`, `\NoSelect`)
	}
	switch {
	case n.children:
		attrs = append(attrs, `\HasChildren`)
	case n.exists:
		attrs = append(attrs, `\HasNoChildren`)
	}
	if req.showSubscribed && n.subscribed {
		attrs = append(attrs, `\Subscribed`)
	}
	for _, use := range n.use {
		attrs = append(attrs, string(use))
	}
	return attrs
}

// lsub is LSUB. A parent that is not subscribed is told as \NoSelect where the pattern stops at it: `%` does, and its
// subscribed child is below (RFC 3501 §6.3.9).
func (s *imapSession) lsub(cmd *imapCommand) error {
	req := &listRequest{}
	if err := cmd.sp(); err != nil {
		return err
	}
	ref, err := cmd.astring()
	if err != nil {
		return err
	}
	if err := cmd.sp(); err != nil {
		return err
	}
	pattern, err := cmd.listMailbox()
	if err != nil {
		return err
	}
	if err := cmd.end(); err != nil {
		return err
	}
	if pattern == "" {
		s.line(`* LSUB (\NoSelect) "/" ""`)
		return nil
	}
	req.patterns = []string{ref + pattern}
	tree, err := s.folderTree()
	if err != nil {
		return err
	}
	for _, n := range tree {
		if n.subscribed && s.matchesAny(req.patterns, n.name) {
			s.lsubLine("", n.name)
		} else if n.subscribedBelow && s.matchesAny(req.patterns, n.name) && s.hidesChild(req, tree, n) {
			s.lsubLine(`\NoSelect`, n.name)
		}
	}
	return nil
}

// hidesChild says whether a name has a subscribed descendant that the pattern does not show.
func (s *imapSession) hidesChild(req *listRequest, tree []*treeNode, parent *treeNode) bool {
	for _, n := range tree {
		if n.subscribed && strings.HasPrefix(n.name, parent.name+"/") && !s.matchesAny(req.patterns, n.name) {
			return true
		}
	}
	return false
}

// lsubLine writes one LSUB response.
func (s *imapSession) lsubLine(attr, name string) {
	b := append([]byte(nil), "* LSUB ("+attr+`) "/" `...)
	s.write(append(appendMailbox(b, name, s.utf8), "\r\n"...))
}

// matchesAny says whether one of the patterns matches a name. Both are compared as the session spells names, so that a
// pattern need not be whole modified UTF-7; or as mailboxName takes UTF-8 where that has not been enabled.
func (s *imapSession) matchesAny(patterns []string, name string) bool {
	spelled := name
	if !s.utf8 {
		spelled = encodeMUTF7(name)
	}
	for _, p := range patterns {
		if matchMailbox(p, spelled) {
			return true
		}
		if !s.utf8 && !isASCII([]byte(p)) && matchMailbox(p, strings.ReplaceAll(name, "&", "&-")) {
			return true
		}
	}
	return false
}

// matchMailbox says whether a LIST pattern matches a name: "*" stands for anything, "%" for anything within a level
// (RFC 9051 §6.3.9). INBOX, alone or as the first level, matches in any case. The work is bounded by the product of both
// lengths, and a pattern with more to match than the name has is refused at once.
func matchMailbox(pattern, name string) bool {
	pattern = squeezeWildcards(pattern)
	if len(pattern) > 2*len(name)+1 {
		return false
	}
	fold := 0
	if name == "INBOX" || strings.HasPrefix(name, "INBOX/") {
		fold = len("INBOX")
	}
	// here[i]: the pattern up to now matches name[:i]
	here := make([]bool, len(name)+1)
	here[0] = true
	for k := range len(pattern) {
		p := pattern[k]
		if p == '*' || p == '%' {
			for i := range len(name) {
				here[i+1] = here[i+1] || here[i] && (p == '*' || name[i] != '/')
			}
			continue
		}
		for i := len(name); i > 0; i-- {
			ch := name[i-1]
			here[i] = here[i-1] && (ch == p || i <= fold && ch == upperASCII(p))
		}
		here[0] = false
	}
	return here[len(name)]
}

// squeezeWildcards makes one wildcard of several in a row.
func squeezeWildcards(pattern string) string {
	var b []byte
	for i := range len(pattern) {
		p := pattern[i]
		if n := len(b); n > 0 && (p == '*' || p == '%') && (b[n-1] == '*' || b[n-1] == '%') {
			if p == '*' {
				b[n-1] = '*'
			}
			continue
		}
		b = append(b, p)
	}
	return string(b)
}

func upperASCII(b byte) byte {
	if b >= 'a' && b <= 'z' {
		return b - 'a' + 'A'
	}
	return b
}
