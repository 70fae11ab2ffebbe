#!/bin/bash
# Real mail clients against a running appliance: clients.sh BINARY; clients.sh
# --install only installs what they and the tests in Go need. Prints a line
# for each check, "ok NAME" or "FAILED NAME" with the output, and "clients done" at
# the end. As root it installs what is missing from Debian's packages and goes on
# as nobody; all traffic stays on the loopback address.
set -euo pipefail

packages=(isync libsasl2-modules gsasl mutt swaks libnet-ssleay-perl mpop fetchmail curl offlineimap3 imapfilter dovecot-imapd dovecot-pop3d openssl netcat-openbsd strace python3-dkim python3-nacl python3-authres opendkim-tools opendkim postfix rspamd coturn chrony osslsigncode avahi-daemon avahi-utils dbus)

install_packages() {
  local missing=() p
  for p in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep 'install ok installed' >/dev/null || missing+=("$p")
  done
  if [ "${#missing[@]}" = 0 ]; then return; fi
  # No service is to start: they are used as programs.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o DPkg::Lock::Timeout=300 update >/dev/null
  apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >/dev/null
  if [ -n "$made" ]; then rm -f "$policy"; fi
}

if [ "${1:-}" = --install ]; then
  if [ "$(id -u)" = 0 ]; then install_packages; fi
  exit
fi

if [ "${1:-}" != --inside ]; then
  if [ "$(id -u)" = 0 ]; then install_packages; fi
  work=$(mktemp -d /tmp/appliance-clients.XXXXXX)
  trap 'rm -rf "$work"' EXIT
  install -m 755 "$1" "$work/appliance"
  install -m 755 "$0" "$work/clients.sh"
  cd "$work"
  if [ "$(id -u)" = 0 ]; then
    chown nobody "$work"
    setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups bash "$work/clients.sh" --inside "$work"
  else
    bash "$work/clients.sh" --inside "$work"
  fi
  exit
fi

work=$2
export HOME=$work/home USER=maria LOGNAME=maria APPLIANCE_DATA=$work/data TERM=xterm LC_ALL=C.UTF-8
umask 077
mkdir -p "$HOME" "$work/near"
offset=$((10000 + $$ % 21000)) # below the ports that the system gives to clients
imap=$((offset + 143)) imaps=$((offset + 993)) pop3=$((offset + 110)) pop3s=$((offset + 995))
smtp=$((offset + 25)) submissions=$((offset + 465)) submission=$((offset + 587))
maria=maria@mail.test bob=bob@mail.test bobs='the second password' ca=$work/ca.pem
server=

start() {
  "$work/appliance" run --listen 127.0.0.1 --port-offset "$offset" --hostname mail.test >"$work/start" 2>>"$work/appliance.log" &
  server=$!
  for _ in $(seq 100); do
    [ -e "$APPLIANCE_DATA/control.json" ] && nc -z 127.0.0.1 "$imaps" && return
    sleep 0.1
  done
  echo "the appliance did not start:"
  cat "$work/start" "$work/appliance.log"
  return 1
}

stop() {
  [ -n "$server" ] || return 0
  local pid=$server
  server=
  kill "$pid" 2>/dev/null || true
  wait "$pid" || { echo "FAILED stop: the appliance ended with $?"; tail -n 20 "$work/appliance.log"; }
}

# check NAME FUNCTION...: one line, and what was said when it fails.
check() {
  local name=$1
  shift
  local status=0
  set +e # in the condition of an if, the first failure would not end the check
  (set -euo pipefail; "$@") >"$work/out" 2>&1
  status=$?
  set -e
  if [ "$status" = 0 ]; then
    echo "ok $name"
  else
    echo "FAILED $name"
    tail -n 60 "$work/out"
    echo "--- the appliance said last:"
    tail -n 20 "$work/appliance.log"
  fi
}

# must_fail STATUS COMMAND...: the refusal is what is wanted.
must_fail() {
  local want=$1 got=0
  shift
  "$@" || got=$?
  [ "$got" = "$want" ] || { echo "exit status $got where $want is wanted"; return 1; }
}

# found PATTERN: grep -q that reads to the end, so that no pipe breaks.
found() { grep "$@" >/dev/null; }

# message SUBJECT: a message for the tests that put one somewhere.
message() {
  printf 'From: Maria <%s>\r\nTo: %s\r\nSubject: %s\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%s@client.test>\r\n\r\nZeile mit Umlaut: ä\r\n.\r\nend\r\n' \
    "$maria" "$bob" "$1" "${1// /.}"
}

imap_url() { echo "imaps://localhost:$imaps/$1"; }
fetch() { curl -sS --cacert "$ca" -u "$maria:$password" "$@"; }
fetch_bob() { curl -sS --cacert "$ca" -u "$bob:$bobs" "$@"; }

# has USER-FETCH FOLDER SUBJECT: whether the folder has a message, by IMAP.
has() { "$1" "$(imap_url "$2")?SUBJECT%20%22${3// /%20}%22" | found '^\* SEARCH [0-9]'; }

# ---------------------------------------------------------------- curl

curl_imap() {
  fetch "$(imap_url INBOX);MAILINDEX=1" | tee /dev/stderr | found '^Subject: Welcome'
  message 'put by curl' >"$work/m"
  fetch -T "$work/m" "$(imap_url INBOX)"
  has fetch INBOX 'put by curl'
  fetch "$(imap_url INBOX);MAILINDEX=2" | cmp - "$work/m"
  curl -sS --cacert "$ca" --ssl-reqd -u "$maria:$password" "imap://localhost:$imap/" | found Archive
  must_fail 67 fetch_wrong "$(imap_url INBOX)"
}
fetch_wrong() { curl -sS --cacert "$ca" -u "$maria:wrong" "$@"; }

curl_pop3() {
  local url=pop3s://localhost:$pop3s
  fetch "$url/" | found '^2 '
  fetch "$url/2" | cmp - "$work/m"
  curl -sS --cacert "$ca" --ssl-reqd -u "$maria:$password" "pop3://localhost:$pop3/1" | found '^Subject: Welcome'
  must_fail 67 fetch_wrong "$url/"
}

curl_smtp() {
  message 'sent by curl' >"$work/m"
  fetch --mail-from "$maria" --mail-rcpt "$bob" -T "$work/m" "smtps://localhost:$submissions"
  has fetch_bob INBOX 'sent by curl'
}

curl_share() {
  local ask=(-X 'STATUS user/bob/Plans (MESSAGES)')
  message 'shared by curl' >"$work/m"
  fetch_bob "$(imap_url '')" -X 'CREATE Plans'
  must_fail 21 fetch "$(imap_url '')" "${ask[@]}"
  fetch_bob "$(imap_url '')" -X 'SETACL Plans maria lri'
  fetch "$(imap_url '')" -X 'LIST "" user/*' | found 'user/bob/Plans'
  fetch -T "$work/m" "$(imap_url user/bob/Plans)"
  has fetch_bob Plans 'shared by curl'
  fetch "$(imap_url user/bob/Plans);MAILINDEX=1" | cmp - "$work/m"
  fetch_bob "$(imap_url '')" -X 'DELETEACL Plans maria'
  must_fail 21 fetch "$(imap_url '')" "${ask[@]}"
}

# ---------------------------------------------------------------- GNU SASL

# logged_in PROTOCOL MECHANISM ADDRESS: the appliance says so.
logged_in() { tac "$work/appliance.log" | found "msg=login .*protocol=$1 account=$3 .*by=$2 "; }

gsasl_client() { timeout 60 gsasl --quiet --x509-ca-file "$ca" -a "$bob" -p "$bobs" "$@" </dev/null; }

# It binds to tls-exporter with TLS 1.3 and to tls-unique with 1.2.
gsasl_imap() {
  gsasl_client --imap --connect "localhost:$imap" --mechanism SCRAM-SHA-256-PLUS "$@"
  logged_in imap SCRAM-SHA-256-PLUS "$bob"
}
gsasl_smtp() {
  gsasl_client --smtp --connect "localhost:$submission" --mechanism SCRAM-SHA-256-PLUS "$@"
  logged_in submission SCRAM-SHA-256-PLUS "$bob"
}
gsasl_unbound() {
  local mechanism
  for mechanism in SCRAM-SHA-256 PLAIN LOGIN; do
    gsasl_client --imap --connect "localhost:$imap" --no-cb --mechanism $mechanism
    gsasl_client --smtp --connect "localhost:$submission" --no-cb --mechanism $mechanism
    logged_in imap $mechanism "$bob"
    logged_in submission $mechanism "$bob"
  done
}
gsasl_refused() {
  local bobs=wrong
  must_fail 1 gsasl_client --imap --connect "localhost:$imap" --mechanism SCRAM-SHA-256-PLUS
  local bob=nobody
  must_fail 1 gsasl_client --smtp --connect "localhost:$submission" --mechanism SCRAM-SHA-256-PLUS
  [ "$(grep -c 'msg=rejected .*protocol=imap user=bob\|msg=rejected .*protocol=submission user=nobody' "$work/appliance.log")" = 2 ]
}

# ---------------------------------------------------------------- swaks

swak() {
  swaks --server 127.0.0.1 --h-Subject "$1" --body 'a line
.
..
end' --tls-verify --tls-ca-path "$ca" --timeout 20 "${@:2}"
}
swaks_25() {
  swak 'swaks plain' --port "$smtp" --from someone@example.org --to "$bob"
  swak 'swaks starttls' --port "$smtp" --tls --from someone@example.org --to "$bob"
  swak 'swaks bounce' --port "$smtp" --tls --from '<>' --to "bob+tag@mail.test"
  swak 'swaks postmaster' --port "$smtp" --from someone@example.org --to postmaster@mail.test
  has fetch_bob INBOX 'swaks plain'
  has fetch_bob INBOX 'swaks starttls'
  has fetch_bob INBOX 'swaks bounce'
  has fetch INBOX 'swaks postmaster'
}
swaks_465() {
  swak 'swaks 465' --port "$submissions" --tls-on-connect --auth PLAIN --auth-user "$bob" --auth-password "$bobs" --from "$bob" --to "$maria"
  has fetch INBOX 'swaks 465'
}
swaks_587() {
  swak 'swaks 587' --port "$submission" --tls --auth LOGIN --auth-user "$bob" --auth-password "$bobs" --from "$bob" --to "$maria"
  has fetch INBOX 'swaks 587'
}
swaks_refused() {
  must_fail 24 swak relay --port "$smtp" --from someone@example.org --to somebody@example.net
  must_fail 24 swak nobody --port "$smtp" --from someone@example.org --to nobody@mail.test
  must_fail 28 swak wrong --port "$submission" --tls --auth PLAIN --auth-user "$bob" --auth-password wrong --from "$bob" --to "$maria"
  must_fail 23 swak unauthenticated --port "$submission" --tls --from "$bob" --to "$maria"
  must_fail 23 swak 'not hers' --port "$submission" --tls --auth PLAIN --auth-user "$bob" --auth-password "$bobs" --from "$maria" --to "$bob"
}

# ---------------------------------------------------------------- mutt

# Debian's mutt takes SCRAM-SHA-256-PLUS where it is offered, and cannot do it; so it has to be told what to take.
mutt_config() {
  cat >"$work/muttrc" <<END
set realname="Maria" from="$maria" use_from=yes use_envelope_from=yes
set smtp_url="smtps://maria%40mail.test:$password@localhost:$submissions/"
set imap_user="$maria" imap_pass="$password" folder="imaps://localhost:$imaps/"
set spoolfile="+INBOX" record="+Sent" mbox="+Archive" move=no quit=yes delete=yes confirmappend=no
set certificate_file="$ca" ssl_starttls=yes ssl_force_tls=yes
set header_cache="" wait_key=no timeout=5 sleep_time=0
set imap_authenticators="scram-sha-256" smtp_authenticators="scram-sha-256"
END
}
mutt_sends() {
  mutt_config
  echo 'Grüße, written by mutt' | mutt -n -F "$work/muttrc" -s 'sent by mutt' "$bob"
  has fetch_bob INBOX 'sent by mutt'
  has fetch Sent 'sent by mutt'
  logged_in submission SCRAM-SHA-256 "$maria"
  logged_in imap SCRAM-SHA-256 "$maria"
}
# in_terminal COMMAND: mutt reads in a terminal alone.
in_terminal() { timeout 60 script -qec "$1" /dev/null </dev/null >"$work/screen"; }
mutt_reads() {
  in_terminal "mutt -n -F '$work/muttrc' -e 'push \"<search>~s put.by.curl<enter><pipe-message>cat >$work/read<enter><save-message>=Archive<enter><sync-mailbox><quit>\"'"
  grep -q '^Subject: put by curl' "$work/read"
  has fetch Archive 'put by curl'
  if has fetch INBOX 'put by curl'; then echo 'still in the INBOX'; return 1; fi
}

# ---------------------------------------------------------------- POP3 clients

mpop_fetches() {
  cat >"$work/mpoprc" <<END
account default
host localhost
port $pop3s
tls on
tls_starttls off
tls_trust_file $ca
auth user
user $bob
password $bobs
keep on
uidls_file $work/uidls
delivery mbox $work/mpop.mbox
received_header off
END
  mpop -C "$work/mpoprc"
  grep -q '^Subject: sent by curl' "$work/mpop.mbox"
  local before
  before=$(stat -c %s "$work/mpop.mbox")
  sed -i "s/^port .*/port $pop3/; s/^tls_starttls .*/tls_starttls on/; s/^auth .*/auth plain/" "$work/mpoprc"
  mpop -C "$work/mpoprc"
  [ "$(stat -c %s "$work/mpop.mbox")" = "$before" ] || { echo 'fetched again'; return 1; }
  sed -i "s/^auth .*/auth scram-sha-256/" "$work/mpoprc"
  mpop -C "$work/mpoprc"
  logged_in pop3 SCRAM-SHA-256 "$bob"
}
fetchmail_fetches() {
  cat >"$work/fetchmailrc" <<END
poll localhost protocol pop3 service $pop3s username "$bob" password "$bobs" ssl sslcertck sslcertfile $ca keep mda "cat >>$work/fetchmail.mbox"
END
  fetchmail -f "$work/fetchmailrc" --pidfile "$work/fetchmail.pid" --nosyslog -v
  grep -q '^Subject: swaks bounce' "$work/fetchmail.mbox"
  must_fail 1 fetchmail -f "$work/fetchmailrc" --pidfile "$work/fetchmail.pid" --nosyslog
  has fetch_bob INBOX 'swaks bounce'
}

# ---------------------------------------------------------------- mbsync

# mbsync_config FILE STORE: STORE is the far side's lines.
mbsync_config() {
  cat >"$1" <<END
IMAPStore far
$2

MaildirStore near
Path $work/near/
Inbox $work/near/INBOX
SubFolders Verbatim

Channel mail
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
CopyArrivalDate yes
END
}
appliance_store() {
  printf 'Host localhost\nPort %s\nUser %s\nPass "%s"\nAuthMechs SCRAM-SHA-256\nSSLType IMAPS\nSystemCertificates no\nCertificateFile %s\n' "$imaps" "$maria" "$password" "$ca"
}
dovecot_store() { # MAILDIR
  cat >"$work/dovecot.conf" <<END
base_dir = $work/dovecot
log_path = $work/dovecot.log
mail_location = maildir:$1
ssl = no
protocols = imap
first_valid_uid = 1
namespace inbox {
  inbox = yes
  separator = /
}
END
  mkdir -p "$work/dovecot"
  # Tunnelled: the same program that listens on a port, without root.
  printf 'Tunnel "env USER=maria HOME=%s /usr/lib/dovecot/imap -c %s"\n' "$HOME" "$work/dovecot.conf"
}
near() { (cd "$work/near" && find . -type f ! -name '.mbsync*' ! -name '.uidvalidity' -printf '%P %s\n' | sort); }

# nothing_to_do CONFIG: neither side gets a message, a flag or a deletion.
nothing_to_do() {
  local before
  before=$(near)
  mbsync -c "$1" -D -a >"$work/mbsync.debug" 2>&1 || { tail -n 40 "$work/mbsync.debug"; return 1; }
  [ "$(near)" = "$before" ] || { echo 'the near side changed:'; diff <(echo "$before") <(near); return 1; }
  if grep -E '>>> [0-9]+ (UID STORE|APPEND|UID COPY|UID MOVE|EXPUNGE|UID EXPUNGE|CREATE|UID FETCH .*BODY)' "$work/mbsync.debug"; then
    echo 'there was still something to do'
    return 1
  fi
}
mbsync_both_ways() {
  local c=$work/mbsyncrc
  mbsync_config "$c" "$(appliance_store)"
  mbsync -c "$c" -a -V
  grep -rq '^Subject: Welcome' "$work/near/INBOX"
  nothing_to_do "$c"
  # A message, a flag and a folder from here.
  mkdir -p "$work/near/Projekte &AOQA9gD8-"/{cur,new,tmp}
  message 'made here' >"$work/near/Projekte &AOQA9gD8-/cur/1700000000.1.here:2,FS"
  local one
  one=$(grep -rl '^Subject: swaks 465' "$work/near/INBOX")
  mv "$one" "$work/near/INBOX/cur/$(basename "$one" | sed 's/:2,.*//'):2,FRS"
  # A deletion there.
  fetch -X "UID STORE $(uid_of 'swaks 587') +FLAGS.SILENT (\\Deleted)" "$(imap_url INBOX)"
  mbsync -c "$c" -a -V
  fetch "$(imap_url Projekte%20%26AOQA9gD8-)?FLAGGED%20SEEN" | found '^\* SEARCH 1'
  fetch "$(imap_url INBOX)?SUBJECT%20%22swaks%20465%22%20FLAGGED%20ANSWERED" | found '^\* SEARCH [0-9]'
  if grep -rq '^Subject: swaks 587' "$work/near/INBOX"; then echo 'the deletion did not come'; return 1; fi
  nothing_to_do "$c"
}
uid_of() { fetch -X "UID SEARCH SUBJECT \"$1\"" "$(imap_url INBOX)" | tr -d '\r' | sed -n 's/^\* SEARCH //p'; }

dovecot_takes_over() {
  mbsync_config "$work/mbsync.dovecot" "$(dovecot_store "$work/data/mail/mail.test/maria")"
  nothing_to_do "$work/mbsync.dovecot"
  [ "$(near | wc -l)" -gt 5 ]
}
dovecot_hands_back() { nothing_to_do "$work/mbsyncrc"; }
dovecot_makes_one() {
  # The same mail, with flags, into a fresh Maildir by Dovecot alone.
  rm -rf "$work/made" "$work/near2"
  cp -a "$work/near" "$work/near2"
  find "$work/near2" \( -name '.mbsyncstate*' -o -name .uidvalidity \) -delete
  # Names without mbsync's own UIDs.
  find "$work/near2" -type f -name '*,U=*' | while read -r f; do mv "$f" "$(echo "$f" | sed 's/,U=[0-9]*//')"; done
  rm -rf "$work/near"
  mv "$work/near2" "$work/near"
  mbsync_config "$work/mbsync.dovecot" "$(dovecot_store "$work/made")"
  mbsync -c "$work/mbsync.dovecot" -a -V
  nothing_to_do "$work/mbsync.dovecot"
  grep -rq '^Subject: Welcome' "$work/made/cur"
}
appliance_takes_over() { nothing_to_do "$work/mbsyncrc"; }

# ---------------------------------------------------------------- others

offlineimap_syncs() {
  cat >"$work/offlineimaprc" <<END
[general]
accounts = a
metadata = $work/offlineimap.meta
ui = quiet
[Account a]
localrepository = l
remoterepository = r
[Repository l]
type = Maildir
localfolders = $work/offlineimap
[Repository r]
type = IMAP
remotehost = localhost
remoteport = $imaps
remoteuser = $maria
remotepass = $password
ssl = yes
sslcacertfile = $ca
END
  offlineimap -o -c "$work/offlineimaprc"
  local one folder=$work/offlineimap/INBOX
  one=$(grep -rl '^Subject: Welcome' "$folder")
  mkdir -p "$work/offlineimap/Later"/{cur,new,tmp}
  mv "$one" "$work/offlineimap/Later/cur/1700000001.moved:2,S"
  offlineimap -o -c "$work/offlineimaprc"
  has fetch Later Welcome
  if has fetch INBOX Welcome; then echo 'still in the INBOX'; return 1; fi
}
imapfilter_moves() {
  cat >"$work/filter.lua" <<END
options.timeout = 30
options.create = true
account = IMAP { server = 'localhost', port = $imaps, username = '$maria', password = '$password', ssl = 'auto' }
found = account.INBOX:contain_subject('swaks') + account.Later:contain_subject('Welcome')
if #found == 0 then error('nothing found') end
found:move_messages(account['Filtered/Today'])
account['Filtered/Today']:is_unseen():mark_flagged()
END
  imapfilter -c "$work/filter.lua" -t "$ca"
  has fetch Filtered/Today swaks
  has fetch Filtered/Today Welcome
  if has fetch INBOX swaks; then echo 'still in the INBOX'; return 1; fi
}

same_mail_after_restart() {
  fetch "$(imap_url INBOX);MAILINDEX=1" >/dev/null
  fetch -X 'UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)' "$(imap_url INBOX)" | sort >"$work/state.$1"
  [ "$1" = before ] || cmp "$work/state.before" "$work/state.$1"
}

# ---------------------------------------------------------------- the run

trap 'stop || true' EXIT
start
password=$(sed -n 's/^ *Password *//p' "$work/start")
[ -n "$password" ] || { echo "FAILED first start"; cat "$work/start" "$work/appliance.log"; exit 1; }
echo "ok first start"
echo "$bobs" | "$work/appliance" user add "$bob" --password-stdin >/dev/null
"$work/appliance" ca >"$ca"

check 'curl imaps' curl_imap
check 'curl pop3s' curl_pop3
check 'curl smtps' curl_smtp
check 'gsasl imap' gsasl_imap
check 'gsasl imap, TLS 1.2' gsasl_imap --priority=NORMAL:-VERS-TLS1.3
check 'gsasl submission' gsasl_smtp
check 'gsasl submission, TLS 1.2' gsasl_smtp --priority=NORMAL:-VERS-TLS1.3
check 'gsasl without channel binding' gsasl_unbound
check 'gsasl refusals' gsasl_refused
check 'swaks 25' swaks_25
check 'swaks 465' swaks_465
check 'swaks 587' swaks_587
check 'swaks refusals' swaks_refused
check 'mutt sends' mutt_sends
check 'mutt reads and saves' mutt_reads
check 'mpop' mpop_fetches
check 'fetchmail' fetchmail_fetches
check 'mbsync both ways, twice' mbsync_both_ways
check 'state before restart' same_mail_after_restart before
stop
check 'Dovecot on our Maildir' dovecot_takes_over
start
check 'we after Dovecot' dovecot_hands_back
check 'same UIDs and flags after restart' same_mail_after_restart after
stop
rm -rf "$work/data/index"
start
check 'same UIDs and flags without the index' same_mail_after_restart noindex
check 'curl shares a folder' curl_share
check 'mbsync without the index' nothing_to_do "$work/mbsyncrc"
check 'offlineimap moves' offlineimap_syncs
check 'imapfilter moves' imapfilter_moves
stop
check 'Dovecot makes a Maildir' dovecot_makes_one
mv "$work/data/mail/mail.test/maria" "$work/data/mail/mail.test/maria.before"
cp -a "$work/made" "$work/data/mail/mail.test/maria"
rm -rf "$work/data/index"
start
check "we on Dovecot's Maildir" appliance_takes_over
if grep -E 'level=(ERROR|WARN)|panic' "$work/appliance.log" | grep -v 'login failed' >"$work/out"; then
  echo 'note: the appliance warned of:'
  head -n 20 "$work/out"
fi
stop
echo 'clients done'
