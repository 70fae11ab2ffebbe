package main

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"howett.net/plist"
	"rsc.io/qr"
)

var deviceLinkPattern = regexp.MustCompile(`<a href="https://[^"/]+(/device/[A-Z2-7]{26})">`)

// linkFor lets somebody make a link, and gives its path.
func linkFor(t testing.TB, b *browser, device string) string {
	t.Helper()
	b.get("/connect")
	b.post("/connect", "device", device)
	found := deviceLinkPattern.FindStringSubmatch(b.body)
	if b.status != 200 || found == nil {
		t.Fatalf("%d without a link:\n%s", b.status, b.body)
	}
	return found[1]
}

// appPasswords lists the names of somebody's app passwords.
func (p *page) appPasswords(t testing.TB, name string) string {
	t.Helper()
	return mustRun(t, p.data, "user", "app-password", "list", name)
}

func TestDeviceProfile(t *testing.T) {
	p := startPage(t)
	link := linkFor(t, p.loggedIn(t, "bob", bobsPassword), "Bob's phone")
	phone := p.browser(t)
	for range 2 { // whoever looks uses nothing up
		phone.get(link)
		phone.says(200, "Set up this device", "bob@home.lan", "Bob&#39;s phone")
	}
	if got := p.appPasswords(t, "bob"); strings.Contains(got, "phone") {
		t.Errorf("there is a password already:\n%s", got)
	}
	phone.post(link, "kind", "apple")
	if phone.status != 200 || phone.answer.Header.Get("Content-Type") != "application/x-apple-aspen-config" {
		t.Fatalf("%d %v\n%s", phone.status, phone.answer.Header, phone.body)
	}
	signed, where := []byte(phone.body), phone.where.Path
	text := p.verified(t, signed)
	payloads := checkProfile(t, text)
	if len(payloads) != 2 {
		t.Fatalf("payloads of the kinds %v", payloads)
	}
	mail := payloads["com.apple.mail.managed"]
	password, _ := mail["IncomingPassword"].(string)
	for key, want := range map[string]any{
		"EmailAddress": "bob@home.lan", "EmailAccountName": "Bob", "IncomingMailServerUsername": "bob@home.lan",
		"OutgoingMailServerUsername": "bob@home.lan", "IncomingMailServerUseSSL": true, "OutgoingMailServerUseSSL": true,
		"IncomingMailServerPortNumber": uint64(993 + p.offset), "OutgoingMailServerPortNumber": uint64(465 + p.offset),
		"OutgoingPassword": password,
	} {
		if mail[key] != want {
			t.Errorf("%s is %v, want %v", key, mail[key], want)
		}
	}
	ca, err := x509.ParseCertificate(payloads["com.apple.security.root"]["PayloadContent"].([]byte))
	if err != nil || !ca.IsCA {
		t.Errorf("the authority: %v", err)
	}
	if _, _, answer := p.imapLogin(t, "bob", password); !strings.Contains(answer, "x OK") {
		t.Errorf("login: %s", answer)
	}
	if got := p.appPasswords(t, "bob"); !strings.Contains(got, "Bob's phone") {
		t.Errorf("the password is not listed:\n%s", got)
	}
	phone.get(link)
	phone.says(410, "This link is used up")
	for range deviceProfileGets - 1 {
		phone.get(where)
		phone.says(200)
	}
	phone.get(where)
	phone.says(410, "This link is used up")
	for _, secret := range []string{password, strings.TrimPrefix(link, "/device/"), where} {
		if secret == "" || strings.Contains(p.stderr.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not there to verify the signature once more")
	}
	file := filepath.Join(t.TempDir(), "mail.mobileconfig")
	if err := os.WriteFile(file, signed, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("openssl", "cms", "-verify", "-inform", "DER", "-in", file, "-purpose", "any", "-CAfile", filepath.Join(p.data, "tls", "ca.pem")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "erification successful") || !strings.Contains(string(out), "com.apple.mail.managed") {
		t.Errorf("openssl: %v\n%s", err, out)
	}
}

// verified gives what was signed, by somebody whom the page's authority vouches for.
func (p *page) verified(t testing.TB, signed []byte) []byte {
	t.Helper()
	message, err := pkcs7.Parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	if err := message.VerifyWithChain(p.roots); err != nil {
		t.Fatalf("signature: %v", err)
	}
	signed[len(signed)/2] ^= 1 // in the content
	if forged, err := pkcs7.Parse(signed); err == nil && forged.VerifyWithChain(p.roots) == nil {
		t.Error("a forged profile is as good")
	}
	signed[len(signed)/2] ^= 1
	return message.Content
}

// profileKeys is what Apple's documentation says of the keys that we use: a value of their type, and whether they must be there.
var profileKeys = map[string]map[string]struct {
	kind any
	must bool
}{
	"": {
		"PayloadType": {"", true}, "PayloadVersion": {uint64(1), true}, "PayloadIdentifier": {"", true}, "PayloadUUID": {"", true},
		"PayloadDisplayName": {"", false}, "PayloadDescription": {"", false}, "PayloadOrganization": {"", false},
	},
	"Configuration":           {"PayloadContent": {[]any(nil), true}, "PayloadRemovalDisallowed": {false, false}},
	"com.apple.security.root": {"PayloadContent": {[]byte(nil), true}, "PayloadCertificateFileName": {"", false}},
	"com.apple.mail.managed": {
		"EmailAccountType": {"", true}, "EmailAddress": {"", false}, "EmailAccountName": {"", false}, "EmailAccountDescription": {"", false},
		"IncomingMailServerAuthentication": {"", true}, "IncomingMailServerHostName": {"", true}, "IncomingMailServerPortNumber": {uint64(0), false},
		"IncomingMailServerUseSSL": {false, false}, "IncomingMailServerUsername": {"", false}, "IncomingPassword": {"", false},
		"OutgoingMailServerAuthentication": {"", true}, "OutgoingMailServerHostName": {"", true}, "OutgoingMailServerPortNumber": {uint64(0), false},
		"OutgoingMailServerUseSSL": {false, false}, "OutgoingMailServerUsername": {"", false}, "OutgoingPassword": {"", false},
		"OutgoingPasswordSameAsIncomingPassword": {false, false}, "SMIMEEnabled": {false, false},
	},
}

// checkProfile holds a profile against that, and gives its payloads by their kind.
func checkProfile(t testing.TB, text []byte) map[string]map[string]any {
	t.Helper()
	var top map[string]any
	if format, err := plist.Unmarshal(text, &top); err != nil || format != plist.XMLFormat {
		t.Fatalf("format %d, %v", format, err)
	}
	seen := map[string]bool{}
	check := func(payload map[string]any) {
		kind := fmt.Sprint(payload["PayloadType"])
		own := profileKeys[kind]
		if own == nil {
			t.Fatalf("a payload of the kind %s", kind)
		}
		for key, value := range payload {
			want, ok := own[key]
			if !ok {
				want, ok = profileKeys[""][key]
			}
			if !ok || fmt.Sprintf("%T", value) != fmt.Sprintf("%T", want.kind) {
				t.Errorf("%s: %s is a %T", kind, key, value)
			}
		}
		for _, keys := range []string{"", kind} {
			for key, want := range profileKeys[keys] {
				if _, ok := payload[key]; want.must && !ok {
					t.Errorf("%s: %s is missing", kind, key)
				}
			}
		}
		uuid := fmt.Sprint(payload["PayloadUUID"])
		if !regexp.MustCompile(`^[0-9A-F]{8}-[0-9A-F]{4}-4[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$`).MatchString(uuid) {
			t.Errorf("%s: UUID %s", kind, uuid)
		}
		for _, key := range []string{uuid, fmt.Sprint(payload["PayloadIdentifier"])} {
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
		}
	}
	check(top)
	payloads := map[string]map[string]any{}
	for _, payload := range top["PayloadContent"].([]any) {
		payload := payload.(map[string]any)
		check(payload)
		payloads[payload["PayloadType"].(string)] = payload
	}
	return payloads
}

// A profile holds its texts whatever they are.
func TestProfileTexts(t *testing.T) {
	const strange = `<&>"'</string><key>x</key> ü 😀`
	p := mailProfile{Address: "a@b.example", Name: strange, Device: strange, Password: "p", Host: "h.example", IMAPS: 993, SMTPS: 465, Title: strange, About: strange}
	text, err := p.plist()
	if err != nil {
		t.Fatal(err)
	}
	payloads := checkProfile(t, text)
	if got := payloads["com.apple.mail.managed"]["EmailAccountName"]; got != strange || len(payloads) != 1 {
		t.Errorf("%v of %d", got, len(payloads))
	}
}

// Another device gets what a person has to type.
func TestDeviceByHand(t *testing.T) {
	p := startPage(t)
	bob := p.loggedIn(t, "bob", bobsPassword)
	shown := regexp.MustCompile(`<code id="secret">([^<]+)</code>`)
	for i, name := range []string{"tablet", "tablet 2"} {
		link := linkFor(t, bob, "tablet")
		device := p.browser(t)
		device.header.Set("Accept-Language", "de")
		device.get(link)
		device.says(200, "Dieses Gerät einrichten")
		device.post(link, "kind", "other")
		device.says(200, "bob@home.lan", fmt.Sprint(993+p.offset), fmt.Sprint(465+p.offset), "/connect/authority.crt")
		found := shown.FindStringSubmatch(device.body)
		if found == nil {
			t.Fatalf("no password:\n%s", device.body)
		}
		if _, _, answer := p.imapLogin(t, "bob", found[1]); !strings.Contains(answer, "x OK") {
			t.Errorf("login %d: %s", i, answer)
		}
		if got := p.appPasswords(t, "bob"); !strings.Contains(got, name+" ") && !strings.Contains(got, name+"\n") {
			t.Errorf("%q is not in\n%s", name, got)
		}
		device.get(link)
		device.says(410)
	}
	bob.get("/connect/authority.crt")
	if ca, err := x509.ParseCertificate([]byte(bob.body)); err != nil || !ca.IsCA || bob.answer.Header.Get("Content-Type") != "application/x-x509-ca-cert" {
		t.Errorf("authority: %v %v", err, bob.answer.Header)
	}
}

// A link is of the account as it was: another password ends it, as it ends sessions.
func TestDeviceLinkEndsWithPassword(t *testing.T) {
	p := startPage(t)
	link := linkFor(t, p.loggedIn(t, "bob", bobsPassword), "phone")
	phone := p.browser(t)
	phone.get(link)
	phone.says(200)
	mustRun(t, p.data, "user", "passwd", "bob")
	phone.post(link, "kind", "apple")
	phone.says(410)
	phone.get(link)
	phone.says(410)
	if got := p.appPasswords(t, "bob"); strings.Contains(got, "phone") {
		t.Errorf("there is a password:\n%s", got)
	}
}

func TestDeviceLinkTimes(t *testing.T) {
	now := time.Now()
	links := newDeviceLinks(func() time.Time { return now })
	token := links.add(deviceLink{account: "a"}, deviceLinkTime)
	if _, ok := links.find(token); !ok {
		t.Error("a link is not there")
	}
	for id := range links.all {
		if strings.Contains(token, string(id[:])) {
			t.Error("a token is kept as it is")
		}
	}
	now = now.Add(deviceLinkTime - time.Second)
	link, ok := links.take(token)
	if _, again := links.take(token); !ok || again {
		t.Error("a link does not work once")
	}
	links.giveBack(token, link)
	now = now.Add(time.Second)
	if _, ok := links.take(token); ok {
		t.Error("a link works after its time")
	}
	used := links.add(deviceLink{account: "a", profile: []byte("x"), gets: deviceProfileGets}, deviceProfileTime)
	if _, ok := links.find(used); ok {
		t.Error("a used link counts as a fresh one")
	}
	if _, ok := links.take(used); ok {
		t.Error("a used link can be used")
	}
	if _, ok := links.fetch(token); ok {
		t.Error("a fresh link has a profile")
	}
	now = now.Add(deviceProfileTime)
	if _, ok := links.fetch(used); ok {
		t.Error("a profile is there after its time")
	}
	for i := range deviceLinkCap + 5 {
		now = now.Add(time.Millisecond)
		links.add(deviceLink{account: fmt.Sprint(i / 20)}, deviceLinkTime)
	}
	perAccount := map[string]int{}
	for _, link := range links.all {
		perAccount[link.account]++
	}
	if len(links.all) > deviceLinkCap || perAccount["3"] != deviceAccountCap {
		t.Errorf("%d links, %d of one person", len(links.all), perAccount["3"])
	}
}

// Whatever is put into names and addresses leads nowhere else.
func TestConnectRefuses(t *testing.T) {
	p := startPage(t)
	bob := p.loggedIn(t, "bob", bobsPassword)
	for _, name := range []string{"", " ", "a\r\nX-Evil: 1", "a\x00b", "a\x1bb", strings.Repeat("x", maxAppName+1)} {
		bob.get("/connect")
		bob.post("/connect", "device", name)
		bob.says(422, "A device has a name")
		if bob.answer.Header.Get("X-Evil") != "" || deviceLinkPattern.MatchString(bob.body) {
			t.Errorf("%q is taken", name)
		}
	}
	bob.get("/connect")
	bob.post("/connect", "device", "<script>alert(1)</script>")
	bob.says(200, "&lt;script&gt;")
	if strings.Contains(bob.body, "<script>alert") {
		t.Error("a name becomes part of the page")
	}
	for _, host := range []string{"evil.example@x", "evil.example/x", "a b", "localhost", "127.0.0.1", "x:99999", "x:0", "<b>"} {
		form := strings.NewReader("device=phone&token=" + tokenPattern.FindStringSubmatch(bob.body)[1])
		r, err := http.NewRequest("POST", bob.base+"/connect", form)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Host = host
		r.AddCookie(&http.Cookie{Name: webSessionCookie, Value: bob.cookie(webSessionCookie)}) // the client has none for the host
		bob.do(r, nil)
		if bob.status == 400 { // the library refuses it
			bob.get("/connect")
			continue
		}
		if !strings.Contains(bob.body, fmt.Sprintf(`<a href="https://%s:%d/device/`, p.hostname(t), 443+p.offset)) {
			t.Errorf("host %q: %d\n%s", host, bob.status, deviceLinkPattern.FindString(bob.body))
		}
	}
	for _, path := range []string{"/device/x", "/device/", "/device/..%2f..%2fetc%2fpasswd", "/device/..%2f..%2ftls%2fca.key/mail.mobileconfig", "/device/x/mail.mobileconfig",
		"/device/%00", "/connect/..%2fca.key", "/connect/ca.key", "/device/x/other.mobileconfig"} {
		bob.get(path)
		if bob.status != 404 && bob.status != 410 || strings.Contains(bob.body, "PRIVATE") {
			t.Errorf("%s: %d", path, bob.status)
		}
	}
}

// hostname is what the appliance calls its machine.
func (p *page) hostname(t testing.TB) string {
	t.Helper()
	system, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return machineName(system)
}

// The picture has the modules of the code, with the border that readers need.
func TestDrawCode(t *testing.T) {
	text := "https://raspberrypi.local:1443/device/" + strings.Repeat("A", 26)
	got, err := drawCode(text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := qr.Encode(text, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	dark := map[[2]int]bool{}
	for _, run := range strings.Split(strings.TrimSuffix(got.Path, "z"), "z") {
		var x, y, n, back int
		if count, err := fmt.Sscanf(run, "M%d %dh%dv1h-%d", &x, &y, &n, &back); err != nil || count != 4 || n != back {
			t.Fatalf("%q: %v", run, err)
		}
		for i := range n {
			dark[[2]int{x + i, y}] = true
		}
	}
	if got.Size != want.Size+8 {
		t.Errorf("size %d of %d modules", got.Size, want.Size)
	}
	for y := range got.Size {
		for x := range got.Size {
			if dark[[2]int{x, y}] != want.Black(x-4, y-4) {
				t.Fatalf("module %d, %d", x, y)
			}
		}
	}
	if _, err := drawCode(strings.Repeat("x", 5000)); err == nil {
		t.Error("too much text fits")
	}
}
