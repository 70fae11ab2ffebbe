package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"
)

// A client library that many programs use, go-imap's imapclient, speaks with the server: all that it can say, over real
// connections. TestIMAPClient holds the list by reflection, so a new version of the library cannot bring anything that is not
// tried.

// clientOptions are the structs by which the library's commands take more than plain arguments.
var clientOptions = []reflect.Type{
	reflect.TypeFor[imap.AppendOptions](), reflect.TypeFor[imap.CreateOptions](), reflect.TypeFor[imap.FetchOptions](),
	reflect.TypeFor[imap.FetchItemBodyStructure](), reflect.TypeFor[imap.FetchItemBodySection](), reflect.TypeFor[imap.SectionPartial](),
	reflect.TypeFor[imap.FetchItemBinarySection](), reflect.TypeFor[imap.FetchItemBinarySectionSize](), reflect.TypeFor[imap.IDData](),
	reflect.TypeFor[imap.ListOptions](), reflect.TypeFor[imap.RenameOptions](), reflect.TypeFor[imap.SearchCriteria](),
	reflect.TypeFor[imap.SearchCriteriaHeaderField](), reflect.TypeFor[imap.SearchCriteriaModSeq](), reflect.TypeFor[imap.SearchOptions](),
	reflect.TypeFor[imap.SelectOptions](), reflect.TypeFor[imap.StatusOptions](), reflect.TypeFor[imap.StoreFlags](),
	reflect.TypeFor[imap.StoreOptions](), reflect.TypeFor[imapclient.GetMetadataOptions](), reflect.TypeFor[imapclient.SortCriterion](),
	reflect.TypeFor[imapclient.SortOptions](), reflect.TypeFor[imapclient.ThreadOptions](), reflect.TypeFor[imapclient.UnilateralDataHandler](),
}

// clientLacks is what the library has and cannot be tried, and why.
var clientLacks = map[string]string{
	"SearchOptions.ReturnSave":       "this version never sends SAVE",
	"StatusOptions.NumRecent":        "the library panics: it is for servers",
	"FetchItemBinarySection.Partial": "the library cannot read BINARY[2]<1>, which is the answer (RFC 3516 §4.2)",
	"UnilateralDataHandler.Metadata": "METADATA comes unasked under NOTIFY alone, which the library does not speak",
}

// clientCalls notes which methods of the library were called, and which fields of its options were set.
type clientCalls struct {
	mu    sync.Mutex
	names map[string]bool
}

func (k *clientCalls) note(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names[name] = true
}

// via gives a method of a client that notes its calls.
func via[F any](k *clientCalls, method F) F {
	f := reflect.ValueOf(method)
	name := strings.TrimSuffix(runtime.FuncForPC(f.Pointer()).Name(), "-fm")
	name = name[strings.LastIndexByte(name, '.')+1:]
	return reflect.MakeFunc(f.Type(), func(args []reflect.Value) []reflect.Value {
		k.note(name)
		for _, arg := range args {
			k.noteFields(arg)
		}
		if f.Type().IsVariadic() {
			return f.CallSlice(args)
		}
		return f.Call(args)
	}).Interface().(F)
}

// noteFields notes the fields that are set in what is one of clientOptions, or has one inside.
func (k *clientCalls) noteFields(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			k.noteFields(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			k.noteFields(v.Index(i))
		}
	case reflect.Struct:
		if !slices.Contains(clientOptions, v.Type()) {
			return
		}
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				k.note(v.Type().Name() + "." + v.Type().Field(i).Name)
				k.noteFields(v.Field(i))
			}
		}
	}
}

// missing gives what was not called or set, without what cannot be.
func (k *clientCalls) missing() []string {
	all := map[string]bool{}
	client := reflect.TypeFor[*imapclient.Client]()
	for i := range client.NumMethod() {
		all[client.Method(i).Name] = true
	}
	for _, t := range clientOptions {
		for i := range t.NumField() {
			all[t.Name()+"."+t.Field(i).Name] = true
		}
	}
	for name := range clientLacks {
		if k.names[name] || !all[name] {
			return []string{name + " is said not to be possible"}
		}
		delete(all, name)
	}
	maps.DeleteFunc(all, func(name string, _ bool) bool { return k.names[name] })
	return slices.Sorted(maps.Keys(all))
}

// clientTest is a test with the library.
type clientTest struct {
	*testing.T
	s *imapServer
	k *clientCalls
}

// TestIMAPClient calls every method of the library's client, with every option.
func TestIMAPClient(t *testing.T) {
	t.Parallel()
	s := startIMAP(t)
	k := &clientCalls{names: map[string]bool{}}
	parts := []struct {
		name string
		test func(*clientTest)
	}{
		{"connections", (*clientTest).connections}, {"logins", (*clientTest).logins}, {"session", (*clientTest).session},
		{"folders", (*clientTest).folders}, {"list", (*clientTest).list}, {"rights", (*clientTest).rights},
		{"annotations", (*clientTest).annotations}, {"quota", (*clientTest).quota}, {"rev1", (*clientTest).messages},
		{"rev2", (*clientTest).messages}, {"utf8", (*clientTest).messages}, {"fetch", (*clientTest).fetch},
		{"search", (*clientTest).search}, {"order", (*clientTest).order}, {"modseq", (*clientTest).modseq},
		{"unasked", (*clientTest).unasked},
	}
	ran := 0
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			ran++
			mustAdd(t, s.Accounts, part.name+"@home.lan", imapPassword)
			part.test(&clientTest{t, s, k})
		})
	}
	if missing := k.missing(); len(missing) > 0 && ran == len(parts) && !t.Failed() {
		t.Errorf("not tried: %s", strings.Join(missing, ", "))
	}
}

// account is that of the part of the test which runs.
func (c *clientTest) account() string { return c.Name()[strings.LastIndexByte(c.Name(), '/')+1:] }

// check ends the test at an error.
func (c *clientTest) check(what string, err error) {
	c.Helper()
	if err != nil {
		c.Fatalf("%s: %v", what, err)
	}
}

// refused looks for a NO with a response code.
func (c *clientTest) refused(what string, err error, code imap.ResponseCode) {
	c.Helper()
	var fault *imap.Error
	if !errors.As(err, &fault) || fault.Type != imap.StatusResponseTypeNo || fault.Code != code {
		c.Errorf("%s: %v, and should be refused with %s", what, err, code)
	}
}

// same compares.
func same[T any](c *clientTest, what string, got, want T) {
	c.Helper()
	if !reflect.DeepEqual(got, want) {
		c.Errorf("%s is %+v, and should be %+v", what, got, want)
	}
}

// inState compares the client's state. It follows the reply to a command, and so is there with the reply to the next.
func (c *clientTest) inState(client *imapclient.Client, want imap.ConnState) {
	c.Helper()
	c.check("NOOP", client.Noop().Wait())
	same(c, "the state", client.State(), want)
}

// address is where a port is.
func (c *clientTest) address(port string) string { return fmt.Sprintf("127.0.0.1:%d", c.s.ports[port]) }

// dial connects with TLS. The connection is closed with the test.
func (c *clientTest) dial(handler *imapclient.UnilateralDataHandler) *imapclient.Client {
	c.Helper()
	client, err := imapclient.DialTLS(c.address("imaps"), &imapclient.Options{TLSConfig: c.s.client, UnilateralDataHandler: handler})
	c.check("connecting", err)
	c.Cleanup(func() { client.Close() })
	return client
}

// login connects and logs in.
func (c *clientTest) login() *imapclient.Client {
	c.Helper()
	client := c.dial(nil)
	c.check("LOGIN", via(c.k, client.Login)(c.account(), imapPassword).Wait())
	return client
}

// append adds a message and gives its UID.
func (c *clientTest) append(client *imapclient.Client, mailbox, text string, options *imap.AppendOptions) imap.UID {
	c.Helper()
	cmd := via(c.k, client.Append)(mailbox, int64(len(text)), options)
	_, err := io.WriteString(cmd, text)
	c.check("APPEND", err)
	c.check("APPEND", cmd.Close())
	data, err := cmd.Wait()
	c.check("APPEND", err)
	if data.UID == 0 || data.UIDValidity == 0 {
		c.Errorf("APPEND gives %+v", data)
	}
	return data.UID
}

// connections are made in each of the library's ways, and ended in both.
func (c *clientTest) connections() {
	options := &imapclient.Options{TLSConfig: c.s.client}
	raw := c.s.dial(c, "imap")
	overTLS, err := imapclient.NewStartTLS(raw, options)
	c.check("STARTTLS", err)
	dialed, err := imapclient.DialStartTLS(c.address("imap"), options)
	c.check("STARTTLS", err)
	plain, err := imapclient.DialInsecure(c.address("imap"), nil)
	c.check("connecting", err)
	implicit, err := tls.Dial("tcp", c.address("imaps"), c.s.client)
	c.check("connecting", err)
	for name, client := range map[string]*imapclient.Client{
		"NewStartTLS": overTLS, "DialStartTLS": dialed, "DialInsecure": plain, "New": imapclient.New(implicit, nil), "DialTLS": c.dial(nil),
	} {
		c.check(name, via(c.k, client.WaitGreeting)())
		same(c, name+": the state", via(c.k, client.State)(), imap.ConnStateNotAuthenticated)
		caps := via(c.k, client.Caps)()
		same(c, name+": STARTTLS is offered", caps.Has(imap.CapStartTLS), name == "DialInsecure")
		same(c, name+": PLUS is offered", caps.Has(imap.AuthCap(saslScramPlus)), name != "DialInsecure")
		c.check(name, via(c.k, client.Noop)().Wait())
		select {
		case <-via(c.k, client.Closed)():
			c.Errorf("%s: it is closed", name)
		default:
		}
		if name == "New" {
			c.check(name, via(c.k, client.Close)())
		} else {
			c.check(name, via(c.k, client.Logout)().Wait())
		}
		<-client.Closed()
		same(c, name+": the state", client.State(), imap.ConnStateLogout)
		client.Close()
	}
}

// scramClient is SCRAM in the form that the library takes.
type scramClient struct {
	mechanism    string
	conversation *scram.ClientConversation
}

func (s *scramClient) Start() (string, []byte, error) {
	first, err := s.conversation.Step("")
	return s.mechanism, []byte(first), err
}

func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	response, err := s.conversation.Step(string(challenge))
	return []byte(response), err
}

// newScram makes one, bound to the TLS connection if conn is not nil.
func (c *clientTest) newScram(password string, conn *tls.Conn) *scramClient {
	c.Helper()
	client, err := scram.SHA256.NewClient(c.account(), password, "")
	c.check("SCRAM", err)
	if conn == nil {
		return &scramClient{saslScram, client.NewConversation()}
	}
	state := conn.ConnectionState()
	binding, err := scram.NewTLSExporterBinding(&state)
	c.check("SCRAM", err)
	return &scramClient{saslScramPlus, client.NewConversationWithChannelBinding(binding)}
}

// logins are by LOGIN and by each mechanism, one after the other on one connection.
func (c *clientTest) logins() {
	conn, err := tls.Dial("tcp", c.address("imaps"), c.s.client)
	c.check("connecting", err)
	client := imapclient.New(conn, nil)
	defer client.Close()
	before := client.Caps()
	same(c, "the mechanisms", slices.Sorted(slices.Values(before.AuthMechanisms())), []string{"LOGIN", "PLAIN", saslScram, saslScramPlus})
	c.refused("LOGIN", via(c.k, client.Login)(c.account(), "wrong").Wait(), imap.ResponseCodeAuthenticationFailed)
	c.refused("PLAIN", via(c.k, client.Authenticate)(sasl.NewPlainClient("", c.account(), "wrong")), imap.ResponseCodeAuthenticationFailed)
	c.refused("PLAIN", client.Authenticate(sasl.NewPlainClient("session", c.account(), imapPassword)), imap.ResponseCodeAuthorizationFailed)
	c.refused("SCRAM", client.Authenticate(c.newScram("wrong", conn)), imap.ResponseCodeAuthenticationFailed)
	c.refused("ANONYMOUS", client.Authenticate(sasl.NewAnonymousClient("me")), imap.ResponseCodeCannot)
	c.inState(client, imap.ConnStateNotAuthenticated)
	bound, unbound := c.newScram(imapPassword, conn), c.newScram(imapPassword, nil)
	for name, mechanism := range map[string]sasl.Client{
		"PLAIN": sasl.NewPlainClient("", c.account(), imapPassword), "LOGIN": sasl.NewLoginClient(c.account(), imapPassword),
		saslScramPlus: bound, saslScram: unbound,
	} {
		c.check(name, client.Authenticate(mechanism))
		c.inState(client, imap.ConnStateAuthenticated)
		for _, want := range imapCapsAfter {
			if !client.Caps().Has(imap.Cap(want)) && !client.Caps().Has(imap.Cap(strings.ToUpper(want))) {
				c.Errorf("%s: %s is not offered", name, want)
			}
		}
		_, err = client.Select("INBOX", nil).Wait()
		c.check("SELECT", err)
		c.check("UNAUTHENTICATE", via(c.k, client.Unauthenticate)().Wait())
		c.inState(client, imap.ConnStateNotAuthenticated)
		same(c, "what is offered", client.Caps(), before)
	}
	same(c, "the server has proved that it knows the password", bound.conversation.Valid() && unbound.conversation.Valid(), true)
}

// session is what a session may ask of the server itself.
func (c *clientTest) session() {
	client := c.login()
	caps, err := via(c.k, client.Capability)().Wait()
	c.check("CAPABILITY", err)
	same(c, "CAPABILITY", caps, client.Caps())
	limit, ok := caps.AppendLimit()
	if !ok || limit == nil || *limit != uint32(c.s.MaxSize) {
		c.Errorf("APPENDLIMIT is %v", limit)
	}
	id, err := via(c.k, client.ID)(&imap.IDData{Name: "go-imap", Version: "2", OS: "any", OSVersion: "1", Vendor: "emersion",
		SupportURL: "https://test", Address: "here", Date: "today", Command: "test", Arguments: "-v", Environment: "none"}).Wait()
	c.check("ID", err)
	same(c, "ID's name", id.Name != "", true)
	anonymous, err := client.ID(nil).Wait()
	c.check("ID", err)
	same(c, "ID", anonymous, id)
	spaces, err := via(c.k, client.Namespace)().Wait()
	c.check("NAMESPACE", err)
	same(c, "NAMESPACE", spaces, &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: '/'}},
		Other: []imap.NamespaceDescriptor{{Prefix: othersPrefix, Delim: '/'}}})
	enabled, err := via(c.k, client.Enable)(imap.CapIMAP4rev2, imap.CapUTF8Accept).Wait()
	c.check("ENABLE", err)
	same(c, "ENABLE", enabled.Caps, imap.CapSet{imap.CapIMAP4rev2: {}, imap.CapUTF8Accept: {}})
	enabled, err = client.Enable(imap.CapMetadata).Wait() // which would be about METADATA that comes unasked
	c.check("ENABLE", err)
	same(c, "ENABLE", enabled.Caps, imap.CapSet{})
	c.check("NOOP", client.Noop().Wait())
	c.check("LOGOUT", client.Logout().Wait())
	<-client.Closed()
	if client.Noop().Wait() == nil {
		c.Error("NOOP works after LOGOUT")
	}
}
