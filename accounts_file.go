package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// accountsPreamble opens a new accounts file.
const accountsPreamble = `# The people of this appliance and their passwords (as hashes). The first one
# is the owner. It may be edited by hand; a running appliance takes an edit
# over within a second, and says so in its log.
`

// accountsMistake is one field that cannot be so.
type accountsMistake struct {
	at  tomlPlace
	err error
}

// parseAccounts reads the text of an accounts file. Its errors are of the
// type *tomlError.
func parseAccounts(text, file string) (*accountBook, error) {
	book := &accountBook{text: text}
	if err := decodeTOML(text, file, book); err != nil {
		return nil, err
	}
	if mistake := book.check(); mistake != nil {
		field := mistake.at.key
		return nil, &tomlError{file, lineOfPlace(text, mistake.at), field + ": " + mistake.err.Error()}
	}
	return book, nil
}

// check brings every address to its normal form, fills the maps and gives the
// first mistake, nil for none.
func (b *accountBook) check() *accountsMistake {
	taken := map[string]bool{}
	for i := range b.Users {
		if mistake := b.Users[i].check(i, taken); mistake != nil {
			return mistake
		}
	}
	for i := range b.Aliases {
		if mistake := b.Aliases[i].check(i, taken); mistake != nil {
			return mistake
		}
	}
	b.index()
	if mistake := b.checkElsewhere(); mistake != nil {
		return mistake
	}
	for i := range b.Aliases {
		if err := b.checkReach(&b.Aliases[i]); err != nil {
			return &accountsMistake{tomlPlace{table: "alias", n: i, key: "to"}, err}
		}
	}
	return nil
}

func (u *User) check(i int, taken map[string]bool) *accountsMistake {
	place := tomlPlace{table: "user", n: i, key: "address"}
	address, err := accountAddress(u.Address)
	if err == nil && taken[address] {
		err = fmt.Errorf("%s is there twice", address)
	}
	if err != nil {
		return &accountsMistake{place, err}
	}
	u.Address, taken[address] = address, true
	if key, err := u.checkFactor(); err != nil {
		return &accountsMistake{tomlPlace{table: "user", n: i, key: key}, err}
	}
	if err := checkPersonName(u.Name); err != nil {
		return &accountsMistake{tomlPlace{table: "user", n: i, key: "name"}, err}
	}
	if u.Password != "" {
		if err := checkPassword(u.Password, checkHash); err != nil {
			return &accountsMistake{tomlPlace{table: "user", n: i, key: "password"}, err}
		}
	}
	if key, err := u.checkQuota(); err != nil {
		return &accountsMistake{tomlPlace{table: "user", n: i, key: key}, err}
	}
	if err := u.checkOutside(); err != nil {
		return &accountsMistake{tomlPlace{table: "user", n: i, key: "send_as"}, err}
	}
	if key, err := u.checkForward(); err != nil {
		return &accountsMistake{tomlPlace{table: "user", n: i, key: key}, err}
	}
	if mistake := u.checkAway(i); mistake != nil {
		return mistake
	}
	return u.checkApps(i)
}

func (u *User) checkApps(i int) *accountsMistake {
	names := map[string]bool{}
	for j, app := range u.Apps {
		place := tomlPlace{"user", i, "app_password", j, "name"}
		if err := checkAppName(app.Name); err != nil {
			return &accountsMistake{place, err}
		}
		if names[app.Name] {
			return &accountsMistake{place, fmt.Errorf("%s has two app passwords named %q", u.Address, app.Name)}
		}
		names[app.Name] = true
		if err := checkPassword(app.Password, checkAppHash); err != nil {
			place.key = "password"
			return &accountsMistake{place, err}
		}
	}
	return nil
}

// checkPassword says what is wrong with a password field, whose hash is checked by another function.
func checkPassword(field string, checkHash func(hash string) error) error {
	hash, keys := splitPassword(field)
	if err := checkHash(hash); err != nil {
		return err
	}
	if keys == "" {
		return nil
	}
	_, err := parseSCRAMKeys(keys)
	return err
}

// maxAppName is the length of an app password's name in bytes.
const maxAppName = 64

func checkAppName(name string) error {
	if name == "" || len(name) > maxAppName || strings.TrimSpace(name) != name || strings.ContainsAny(name, "\r\n\x00") {
		return fmt.Errorf("%q cannot name an app password: take 1 to %d characters, such as phone", name, maxAppName)
	}
	return nil
}

func (a *Alias) check(i int, taken map[string]bool) *accountsMistake {
	place := tomlPlace{table: "alias", n: i, key: "address"}
	address, err := aliasAddress(a.Address)
	if err == nil && taken[address] {
		err = fmt.Errorf("%s is there already", address)
	}
	if err != nil {
		return &accountsMistake{place, err}
	}
	a.Address, taken[address] = address, true
	place.key = "to"
	if len(a.To) == 0 {
		return &accountsMistake{place, fmt.Errorf("%s goes to nobody", address)}
	}
	for j := range a.To {
		to, err := splitAddress(a.To[j])
		if err != nil {
			return &accountsMistake{place, err}
		}
		a.To[j] = keyOf(to)
	}
	return nil
}

// checkReach follows an alias to the people behind it and says where that
// fails: nobody there, a circle, or too many.
func (b *accountBook) checkReach(a *Alias) error {
	for _, to := range a.To {
		key := b.targetOf(to)
		if key == "" || strings.HasPrefix(key, "@") {
			return fmt.Errorf("%s is nobody here; an alias goes to the accounts and aliases of this appliance", to)
		}
	}
	if path := b.pathTo(a.Address, a, map[string]bool{}); path != nil {
		return fmt.Errorf("the alias goes in a circle: %s to %s", a.Address, strings.Join(path, " to "))
	}
	if len(b.resolve(addressOfKey(a.Address))) >= maxAliasReach {
		return fmt.Errorf("%s reaches too many: %d people at most", a.Address, maxAliasReach-1)
	}
	return nil
}

// pathTo gives the way from an alias to goal, nil for none. seen holds the
// aliases that were tried.
func (b *accountBook) pathTo(goal string, from *Alias, seen map[string]bool) []string {
	for _, to := range from.To {
		key := b.targetOf(to)
		if key == goal {
			return []string{key}
		}
		next := b.byAlias[key]
		if next == nil || seen[key] {
			continue
		}
		seen[key] = true
		if path := b.pathTo(goal, next, seen); path != nil {
			return append([]string{key}, path...)
		}
	}
	return nil
}

// render gives the text of a changed book. What did not change keeps its
// place, its layout and its comments; should the file be written in a way
// that cannot be edited piece by piece, all of it is written anew.
func (b *accountBook) render(before *accountBook) string {
	text := b.editedText(before)
	if again, err := parseAccounts(text, ""); err == nil && b.same(again) {
		return text
	}
	return b.editedText(newAccountBook())
}

// same compares what the file holds.
func (b *accountBook) same(other *accountBook) bool {
	return reflect.DeepEqual(b.comparable(), other.comparable())
}

// comparable is the people and aliases without what does not survive
// writing: nil or empty, and where a time was written.
func (b *accountBook) comparable() [2]any {
	c := b.clone()
	for i := range c.Users {
		u := &c.Users[i]
		u.Created = u.Created.UTC().Round(0)
		for j := range u.Apps {
			u.Apps[j].Created = u.Apps[j].Created.UTC().Round(0)
		}
		if len(u.Recovery) == 0 {
			u.Recovery = nil
		}
		if len(u.Apps) == 0 {
			u.Apps = nil
		}
		if len(u.SendAs) == 0 {
			u.SendAs = nil
		}
		if len(u.Forward) == 0 {
			u.Forward = nil
		}
	}
	return [2]any{append([]User{}, c.Users...), append([]Alias{}, c.Aliases...)}
}

// editedText goes through the blocks of the text before and keeps, replaces
// or drops each; what is new comes at the end.
func (b *accountBook) editedText(before *accountBook) string {
	var out strings.Builder
	done := map[string]bool{}
	users, aliases := 0, 0
	for _, block := range splitTOML(before.text) {
		switch {
		case block.table == "user" && users < len(before.Users):
			old := &before.Users[users]
			users++
			address := old.Address
			if to, ok := b.renamed[address]; ok {
				address = to
			}
			if u := b.byUser[address]; u != nil {
				done[u.Address] = true
				out.WriteString(block.replaced(reflect.DeepEqual(*u, *old), u.text))
			}
		case block.table == "alias" && aliases < len(before.Aliases):
			old := &before.Aliases[aliases]
			aliases++
			if a := b.byAlias[old.Address]; a != nil {
				done[a.Address] = true
				out.WriteString(block.replaced(reflect.DeepEqual(*a, *old), a.text))
			}
		default:
			out.WriteString(block.comment + block.body)
		}
	}
	if before.text == "" {
		out.WriteString(accountsPreamble)
	}
	for i := range b.Users {
		if u := &b.Users[i]; !done[u.Address] {
			out.WriteString("\n" + u.text())
		}
	}
	for i := range b.Aliases {
		if a := &b.Aliases[i]; !done[a.Address] {
			out.WriteString("\n" + a.text())
		}
	}
	return out.String()
}

// replaced gives the block as it was, or under the same comment the new text.
func (block tomlBlock) replaced(unchanged bool, text func() string) string {
	if unchanged {
		body := block.body
		if !strings.HasSuffix(body, "\n") {
			body += "\n"
		}
		return block.comment + body
	}
	blank := ""
	if strings.HasSuffix(block.body, "\n\n") {
		blank = "\n"
	}
	return block.comment + text() + blank
}

func (u *User) text() string {
	var out strings.Builder
	out.WriteString("[[user]]\n")
	writeField(&out, "", "address", u.Address)
	if u.Name != "" {
		writeField(&out, "", "name", u.Name)
	}
	if u.Password != "" {
		writeField(&out, "", "password", u.Password)
	}
	if u.Disabled {
		writeField(&out, "", "disabled", true)
	}
	if u.TOTP != "" {
		writeField(&out, "", "totp", u.TOTP)
	}
	if len(u.Recovery) > 0 {
		writeField(&out, "", "recovery", u.Recovery)
	}
	if u.Language != "" {
		writeField(&out, "", "language", u.Language)
	}
	if u.Quota != "" {
		writeField(&out, "", "quota", u.Quota)
	}
	if u.QuotaMessages != 0 {
		writeField(&out, "", "quota_messages", u.QuotaMessages)
	}
	if len(u.SendAs) > 0 {
		writeField(&out, "", "send_as", u.SendAs)
	}
	if len(u.Forward) > 0 {
		writeField(&out, "", "forward", u.Forward)
	}
	if u.ForwardOnly {
		writeField(&out, "", "forward_only", true)
	}
	writeTime(&out, "", u.Created)
	if u.Away != nil {
		u.Away.write(&out)
	}
	for _, app := range u.Apps {
		out.WriteString("\n  [[user.app_password]]\n")
		writeField(&out, "  ", "name", app.Name)
		writeField(&out, "  ", "password", app.Password)
		writeTime(&out, "  ", app.Created)
	}
	return out.String()
}

func (a *Alias) text() string {
	var out strings.Builder
	out.WriteString("[[alias]]\n")
	writeField(&out, "", "address", a.Address)
	writeField(&out, "", "to", a.To)
	return out.String()
}

func writeField(out *strings.Builder, indent, key string, value any) {
	text, err := toml.Marshal(map[string]any{key: value})
	if err != nil {
		return // not for strings, lists of them and bools
	}
	out.WriteString(indent)
	out.Write(text)
}

func writeTime(out *strings.Builder, indent string, t time.Time) {
	if !t.IsZero() {
		_, _ = fmt.Fprintf(out, "%screated = %s\n", indent, t.UTC().Format(time.RFC3339))
	}
}
