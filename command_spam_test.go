package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The commands about spam, with and without a running appliance.
func TestSpamCommands(t *testing.T) {
	for _, up := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%v", up), func(t *testing.T) {
			data, mail := homeData(t), t.TempDir()
			for i := range 21 {
				if err := os.WriteFile(filepath.Join(mail, fmt.Sprint(i)), []byte(strings.Replace(friendLetter, "<1@", fmt.Sprintf("<%d@", i), 1)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(mail, "notes"), []byte("nothing\nat all\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			settings := "dnsbl = [\"zen.example.org\"]\ngreylist = true\nmilter = \"localhost:1\"\n"
			if err := os.WriteFile(dataDir(data).settings(), []byte(settings), 0o600); err != nil {
				t.Fatal(err)
			}
			if up {
				startRun(t, data)
			}
			want := `Learned   0 unwanted and 0 wanted messages
          Words are judged from 20 of each kind on. Until then only rules are.
Senders   0 are known to somebody here
DNS lists zen.example.org
Greylist  on
Milter    localhost:1
`
			if got := mustRun(t, data, "spam", "status"); got != want {
				t.Errorf("status:\n%s", got)
			}
			for _, step := range [][2]string{
				{"--spam", "21 messages learned; in all 21 unwanted and 0 wanted.\nLeft out, as they are no mail: notes.\n"},
				{"--spam", "0 messages learned; in all 21 unwanted and 0 wanted.\n21 messages known from before.\nLeft out, as they are no mail: notes.\n"},
				{"--ham", "21 messages learned; in all 0 unwanted and 21 wanted.\nLeft out, as they are no mail: notes.\n"},
			} {
				if got := mustRun(t, data, "spam", "train", step[0], mail); got != step[1] {
					t.Errorf("train %s: %s", step[0], got)
				}
			}
			var s SpamStatus
			if err := json.Unmarshal([]byte(mustRun(t, data, "spam", "status", "--json")), &s); err != nil || s.Wanted != 21 || s.Needed != minLearned || !s.Greylist || len(s.Lists) != 1 {
				t.Errorf("%+v %v", s, err)
			}
			if got := mustRun(t, data, "spam", "forget"); !strings.HasPrefix(got, "The spam filter has forgotten") {
				t.Errorf("forget: %s", got)
			}
			if got := mustRun(t, data, "spam", "status"); got != want {
				t.Errorf("after forget:\n%s", got)
			}
			if status, _, text := runCommand(t, data, "", "spam", "train", "--spam", filepath.Join(mail, "none")); status != exitFailed || !strings.Contains(text, "learning from") {
				t.Errorf("no folder: %d %s", status, text)
			}
			for _, args := range [][]string{{}, {"--spam", mail, "--ham", mail}} {
				if status, _, text := runCommand(t, data, "", append([]string{"spam", "train"}, args...)...); status != exitUsage || !strings.Contains(text, "either --spam DIR or --ham DIR") {
					t.Errorf("%v: %d %s", args, status, text)
				}
			}
		})
	}
}

func TestSpamSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings.toml")
	for text, want := range map[string]string{
		"dnsbl = [\"Zen.Spamhaus.org.\"]":                "",
		"greylist = true":                                "",
		"milter = 'unix:/run/m'":                         "",
		"\ndnsbl = ['a b']":                              "settings.toml line 2: dnsbl: ",
		"dnsbl = 'zen.spamhaus.org'":                     "settings.toml line 1: dnsbl: ",
		"milter = 'rspamd'":                              `settings.toml line 1: milter: "rspamd" is neither unix:/path nor HOST:PORT`,
		"milter = 'unix:m'":                              `settings.toml line 1: milter: "m" is no absolute path of a socket`,
		"dnsbl = [" + strings.Repeat("'a.b', ", 9) + "]": "settings.toml line 1: dnsbl: there are 9 lists, and 8 at most are asked",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readSettings(file)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if len(s.DNSBL) == 1 && s.DNSBL[0] != "zen.spamhaus.org" {
			t.Errorf("got %q", s.DNSBL)
		}
	}
}
