#!/bin/bash
# The life of the service under real service managers: service.sh BINARY [NAMES]. Debian with systemd, with System V init and with
# OpenRC is booted by systemd-nspawn in a tree of its own, with a network of its own. Prints a line for each check, "ok NAME
# (TIME)" or "FAILED NAME" with the output, and "service done" at the end. Needs root; where something is missing it says so.
set -euo pipefail
work=$(mktemp -d /tmp/appliance-service.XXXXXX)
binary=$(readlink -f "${1:?the binary}")
source "$(dirname "$0")/trees.sh"

nspawn='' leader='' root=''
trap 'halt; sleep 0.2; unmount_below "$work"; clear_away "$work"' EXIT

skip() {
  note "$*: skip the service under real service managers"
  echo "service done"
  exit
}
[ "$(id -u)" = 0 ] || skip "only root can boot a system"
need systemd-nspawn systemd-container || skip "systemd-nspawn is not to be had"
need mmdebstrap mmdebstrap || skip "mmdebstrap is not to be had"

# enter COMMAND...: runs it in the machine, as root.
enter() { nsenter -t "$leader" -m -u -i -n -p -C -- env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
shell() { enter bash -euo pipefail -c "$@"; }

# fresh NAME SUITE PACKAGES: another machine, whose disk is memory: what its scripts remount is not this machine's.
fresh() {
  local from
  halt
  umount -l "$work/root" 2>/dev/null || true
  from=$(tree "$1" "$2" "$3") || return 1
  mkdir -p "$work/root"
  mount -t tmpfs -o size=700m,mode=755 tmpfs "$work/root"
  root=$work/root
  cp -a "$from/." "$root"
  echo testbox >"$root/etc/hostname"
  # What looks after disks has nothing to do there, and takes its time.
  for script in checkroot.sh checkfs.sh checkroot-bootclean.sh mountall.sh hwclock.sh umountfs umountroot urandom; do
    if [ -e "$root/etc/init.d/$script" ]; then
      printf '#!/bin/sh\n### BEGIN INIT INFO\n# Provides: %s\n# Required-Start:\n# Required-Stop:\n# Default-Start: S\n# Default-Stop:\n### END INIT INFO\n' "${script%.sh}" >"$root/etc/init.d/$script"
    fi
  done
  install -m 755 "$binary" "$root/root/appliance"
}

# boot: starts the machine and waits until it is up.
boot() {
  systemd-nspawn -q -b -D "$root" --private-network --register=no --keep-unit --console=pipe </dev/null >>"$work/nspawn.log" 2>&1 &
  nspawn=$!
  eventually 20 find_leader
  leader=$(find_leader)
  eventually 60 "is_up_$manager"
}
find_leader() { pgrep -P "$nspawn" | head -1 | found . && pgrep -P "$nspawn" | head -1; }
is_up_systemd() { case $(enter systemctl is-system-running 2>/dev/null) in running | degraded) ;; *) return 1 ;; esac; }
is_up_sysv() { enter runlevel | found '2$' && ! enter pgrep -f '/etc/init.d/rc 2'; }
is_up_openrc() { enter runlevel | found '2$' && ! enter pgrep -f 'openrc default|/etc/init.d/rc 2'; }

# halt: takes the power away.
halt() {
  if [ -n "$leader" ]; then kill -9 "$leader" 2>/dev/null || true; fi
  if [ -n "$nspawn" ]; then wait "$nspawn" 2>/dev/null || true; fi
  leader='' nspawn=''
}

# explain: what may help to understand a failure.
explain() {
  [ -n "$leader" ] || return 0
  echo "--- the machine said last:"
  enter appliance log -n 15 || true
  enter ps axo user,pid,ppid,etimes,args | grep -v '\]$' | tail -n 15 || true
}

# Of checks: each runs in a shell of its own, so what they learn lies in files.

greeting() { shell 'exec 3<>/dev/tcp/127.0.0.1/$0 && IFS= read -r -t 10 line <&3 && echo "$line"' "$1"; }
is_open() { shell 'exec 3<>/dev/tcp/127.0.0.1/$0' "$1"; }
all_answer() {
  local port
  for port in 25 587; do greeting "$port" | found '^220 '; done
  greeting 110 | found '^+OK'
  greeting 143 | found '^\* OK'
  for port in 465 993 995 80 443; do is_open "$port"; done
}
answers() { eventually 30 all_answer; }

# login ADDRESS PASSWORD: by IMAP, which takes a password without TLS on the own machine alone.
login() {
  shell 'exec 3<>/dev/tcp/127.0.0.1/143; printf "a LOGIN \"%s\" \"%s\"\r\nb LOGOUT\r\n" "$0" "$1" >&3; timeout 10 cat <&3' "$1" "$2" | found '^a OK'
}
pid() { enter pgrep -f '^/usr/(local/)?bin/appliance run'; }
password() { sed -n 's/^  Password  *//p' "$work/installed"; }
address() { sed -n 's/^  Address  *//p' "$work/installed"; }

# listing: all files outside of the data folder and of what the system itself writes.
listing() {
  (cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./run -o -path ./tmp -o -path ./dev -o -path ./var/lib/appliance \
    -o -path ./var/lib/systemd -o -path ./var/log -o -path ./var/tmp -o -path ./var/cache -o -path ./var/lib/urandom \
    -o -path './etc/init.d/.depend.*' \) -prune -o -print | grep -vE '^\./etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|^\./etc/(\.pwd\.lock|machine-id|resolv\.conf|mtab|adjtime|nologin|motd)$|^\./var/lib/(initscripts|sysv|dbus|urandom)' |
    sed -E 's,^(./etc/rc..d/[SK])[0-9]{2},\1,' | sort) # insserv numbers all links anew
}
users() { (cd "$root/etc" && cat passwd group); }

# ---------------------------------------------------------------- steps of all managers

before_install() { listing >"$work/files"; users >"$work/users"; }

install_it() {
  before_install
  enter SUDO_USER=maria /root/appliance install >"$work/installed"
  cat "$work/installed"
  found 'it starts with the machine' <"$work/installed"
  [ "$(address)" = maria@testbox.local ]
  [ "$(password | wc -c)" -gt 20 ]
  found 'port 993 (TLS from the start) or 143 (STARTTLS)' <"$work/installed"
  all_answer # at once
  login "$(address)" "$(password)"
}

rights() {
  local p status
  p=$(pid)
  status=$(enter cat "/proc/$p/status")
  [ "$(enter ps -o user:20= -p "$p")" = appliance ]
  ! grep -E '^(Uid|Gid):' <<<"$status" | found -w 0
  ! grep '^Groups:' <<<"$status" | found -w 0
  grep '^CapEff:' <<<"$status" | found -E '\s0{13}(000|400)$' # none, or to open low ports
  [ -z "$(enter find /var/lib/appliance ! -user appliance)" ]
  [ "$(enter stat -c %a /var/lib/appliance)" = 700 ]
}

status_shows() {
  enter appliance status | tee "$work/status"
  found "$(address | sed 's/.*@//')" <"$work/status"
  found "Service  *of $1, starts with the machine" <"$work/status"
  found '993 imaps' <"$work/status"
  enter appliance status --json | found '"running": true'
}

refusals() {
  must_fail 1 as_nobody appliance stop >"$work/refused" 2>&1
  found 'run it with sudo: sudo appliance stop' <"$work/refused"
  must_fail 1 as_nobody appliance user list >"$work/refused" 2>&1
  found 'that of the service is /var/lib/appliance: for it, run this as root' <"$work/refused"
  must_fail 1 as_nobody appliance log >"$work/refused" 2>&1
  found 'only an administrator may read the log' <"$work/refused"
  as_nobody appliance status | tee "$work/status"
  found 'runs as a service' <"$work/status"
}

as_nobody() { enter HOME=/nonexistent setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }

more_people() {
  printf 'correct horse\n' | enter appliance user add "$1" --password-stdin | found 'has an account now'
  login "$1@testbox.local" 'correct horse'
}

log_shows() {
  enter appliance log -n 1000 | tee "$work/log" | found 'msg=listening'
  ! found -F "$(password)" <"$work/log"
  ! grep -rF "$(password)" "$root/var/log" "$root/var/lib/appliance" "$root/run" 2>/dev/null | found .
}

survives_kill() {
  local old
  old=$(pid)
  enter kill -9 "$old"
  eventually 20 new_process "$old"
  answers
}
new_process() { [ -n "$(pid)" ] && [ "$(pid)" != "$1" ]; }

stop_and_start() {
  enter appliance stop | found 'is stopped'
  must_fail 1 is_open 143
  ! pid
  must_fail 1 enter appliance status >"$work/refused" 2>&1
  found 'does not run: `appliance start` starts it' <"$work/refused"
  # What root does now must not be root's alone.
  printf 'correct horse\n' | enter appliance user add carol --password-stdin
  [ -z "$(enter find /var/lib/appliance ! -user appliance)" ]
  enter appliance start | found 'runs'
  all_answer
  login carol@testbox.local 'correct horse'
  enter appliance restart | found 'runs'
  all_answer
}

after_power_cut() { login "$(address)" "$(password)"; more_people "$1"; }

uninstall_it() {
  enter appliance uninstall | tee "$work/uninstalled"
  found 'stay in /var/lib/appliance' <"$work/uninstalled"
  must_fail 1 is_open 143
  ! pid
  listing | diff "$work/files" -
  users | diff "$work/users" -
  [ -z "$(enter find /var/lib/appliance ! -user root)" ]
  enter test -s /var/lib/appliance/accounts.toml
  must_fail 1 enter /root/appliance stop >"$work/refused" 2>&1
  found 'there is no service here' <"$work/refused"
}

install_anew() {
  enter /root/appliance install | tee "$work/anew"
  found 'with the accounts that it had: maria@testbox.local' <"$work/anew"
  ! found Password <"$work/anew"
  all_answer
  login "$(address)" "$(password)"
}

# life NAME: what is the same with all managers.
life() {
  check "$1: install" install_it
  check "$1: rights are given up" rights
  check "$1: status" status_shows "$1"
  check "$1: who is not root is told what to do" refusals
  check "$1: an account more" more_people bob
  check "$1: log, without the password" log_shows
  check "$1: kill -9, and it is there again" survives_kill
  check "$1: stop, start, restart" stop_and_start
}

# ends NAME: the rest.
ends() {
  halt
  boot
  check "$1: after a hard stop of the machine" answers
  check "$1: nothing is lost" after_power_cut dave
  check "$1: uninstall leaves nothing but the data" uninstall_it
  check "$1: install goes on with the data" install_anew
}

# ---------------------------------------------------------------- systemd alone

survives_hang() {
  local old
  old=$(pid)
  shell 'mkdir -p /run/systemd/system/appliance.service.d; printf "[Service]\nWatchdogSec=2\n" >/run/systemd/system/appliance.service.d/t.conf; systemctl daemon-reload; appliance restart'
  old=$(pid)
  sleep 3 # it is well, and says so
  [ "$(pid)" = "$old" ]
  enter kill -STOP "$old"
  eventually 30 new_process "$old"
  shell 'rm -r /run/systemd/system/appliance.service.d; systemctl daemon-reload'
  enter appliance restart
  answers
}

reboot_it() { enter systemctl reboot || true; }

install_again() {
  local old
  old=$(pid)
  enter appliance install | tee "$work/again"
  found 'with the accounts that it had: maria@testbox.local and' <"$work/again"
  ! found Password <"$work/again"
  new_process "$old"
  all_answer
}

# newer: another version, which runs the same.
newer() { cp "$binary" "$root/root/newer"; printf 'a newer version' >>"$root/root/newer"; chmod 755 "$root/root/newer"; }

upgrade() {
  newer
  enter /root/newer install
  cmp "$root/root/newer" "$root/usr/local/bin/appliance"
  all_answer
  ! ls "$root/usr/local/bin" | found -v '^appliance$'
}

failed_upgrade() {
  cp "$root/root/newer" "$work/good"
  printf 'that does not run' >>"$root/root/newer"
  shell 'mkdir -p /run/systemd/system/appliance.service.d; printf "[Service]\nExecStartPre=sh -c \"! tail -c 20 /usr/local/bin/appliance | grep -q that.does.not\"\n" >/run/systemd/system/appliance.service.d/t.conf; systemctl daemon-reload'
  must_fail 1 enter /root/newer install >"$work/failed" 2>&1
  cat "$work/failed"
  found 'the program from before is in its place again, and runs' <"$work/failed"
  cmp "$work/good" "$root/usr/local/bin/appliance"
  ! ls "$root/usr/local/bin" | found -v '^appliance$'
  all_answer
  login "$(address)" "$(password)"
  shell 'rm -r /run/systemd/system/appliance.service.d /root/newer; systemctl daemon-reload'
}

# A new version whose data or settings do not let it run says why.
told_why() {
  shell 'echo "colour = 1" >>/var/lib/appliance/settings.toml'
  must_fail 1 enter /root/appliance install >"$work/failed" 2>&1
  cat "$work/failed"
  found 'the service did not come up: .*settings.toml.*colour' <"$work/failed"
  shell 'sed -i /colour/d /var/lib/appliance/settings.toml'
  answers # it is tried every two seconds
}

port_in_use() {
  shell 'perl -MIO::Socket::INET -e "\$s = IO::Socket::INET->new(Listen => 1, LocalAddr => q(0.0.0.0:25), ReuseAddr => 1) or die; sleep 100" >/dev/null 2>&1 & echo $! >/run/taken; disown'
  eventually 10 is_open 25
  must_fail 1 enter /root/appliance install >"$work/failed" 2>&1
  cat "$work/failed"
  shell 'kill $(cat /run/taken); rm /run/taken'
  found 'port 25 (smtp) is in use by perl (process [0-9]*): end it, or choose other ports' <"$work/failed"
  listing | diff "$work/files" -
  users | diff "$work/users" -
}

elsewhere() {
  shell 'mkdir -p /srv/x; touch /srv/x/letter'
  must_fail 1 enter /root/appliance install --data /srv/x >"$work/refused" 2>&1
  found 'holds other things' <"$work/refused"
  shell 'mkdir -m 700 /srv/closed; mkdir /srv/closed/mail; touch /srv/closed/mail/accounts.toml; chown -R daemon:daemon /srv/closed'
  must_fail 1 enter /root/appliance install --data /srv/closed/mail >"$work/refused" 2>&1
  found 'the user appliance, as whom the service runs, does not get into /srv/closed.*; nothing was installed' <"$work/refused"
  [ -z "$(enter find /srv/closed ! -user daemon)" ] # it is whose it was
  must_fail 1 enter /root/appliance install --data /var/tmp/mail >"$work/refused" 2>&1
  found '/var/tmp/mail is emptied when the machine starts' <"$work/refused"
  users | diff "$work/users" -
  enter /root/appliance install --data "/srv/Maria's mail" --hostname mail.home.lan --port-offset 2000 | found "/srv/Maria's mail/mail"
  greeting 2143 | found '^\* OK'
  enter /root/appliance install | found 'postmaster@mail.home.lan' # as the last time
  greeting 2143 | found '^\* OK'
  enter appliance status | found "Data  */srv/Maria's mail"
  enter appliance uninstall | found "stay in /srv/Maria's mail"
}

# Somebody starts it by hand, as themselves, and installs it later.
by_hand() {
  shell 'useradd --create-home maria 2>/dev/null || true; rm -rf /var/lib/appliance'
  install -m 755 "$binary" "$root/home/maria/appliance"
  shell 'printf "correct horse\n" | setpriv --reuid=maria --regid=maria --init-groups env HOME=/home/maria USER=maria /home/maria/appliance user add anna --password-stdin'
  shell 'setpriv --reuid=maria --regid=maria --init-groups env HOME=/home/maria USER=maria /home/maria/appliance run --listen 127.0.0.1 --port-offset 3000 >/home/maria/said 2>&1 & echo $! >/run/byhand; disown'
  eventually 20 greeting 3143
  shell 'exec 3<>/dev/tcp/127.0.0.1/3143; printf "a LOGIN anna \"correct horse\"\r\nb APPEND INBOX {16+}\r\nSubject: kept\r\n\r\n\r\nc LOGOUT\r\n" >&3; timeout 10 cat <&3' | found '^b OK'
  must_fail 1 enter SUDO_USER=maria /root/appliance install >"$work/refused" 2>&1
  found 'somebody runs an appliance .* with the data folder /home/maria/.local/share/appliance: end it first' <"$work/refused"
  shell 'kill $(cat /run/byhand); while kill -0 $(cat /run/byhand) 2>/dev/null; do sleep 0.1; done'
  shell 'cd /home/maria/.local/share/appliance && find . -type f | sort | xargs sha256sum' >"$work/byhand"
}
take_over() {
  by_hand
  enter SUDO_USER=maria /root/appliance install | tee "$work/taken"
  found 'with the accounts that it had: anna@testbox.local' <"$work/taken"
  found 'copy: /home/maria/.local/share/appliance stays as it was' <"$work/taken"
  all_answer
  login anna 'correct horse'
  shell 'exec 3<>/dev/tcp/127.0.0.1/143; printf "a LOGIN anna \"correct horse\"\r\nb SELECT INBOX\r\nc FETCH 1 BODY[HEADER.FIELDS (SUBJECT)]\r\nd LOGOUT\r\n" >&3; timeout 10 cat <&3' | found 'Subject: kept'
  [ -z "$(enter find /var/lib/appliance ! -user appliance)" ]
  shell 'cd /home/maria/.local/share/appliance && find . -type f | sort | xargs sha256sum' | diff "$work/byhand" -
  shell 'cmp /home/maria/.local/share/appliance/tls/ca.pem /var/lib/appliance/tls/ca.pem'
}

# The service sees nothing of the folders of people: the command reads for it.
train_from_home() {
  shell 'mkdir -p /home/maria/Mail; chmod 700 /home/maria /home/maria/Mail
    for i in 1 2 3; do printf "From: a@b.example\r\nSubject: %s\r\nMessage-ID: <%s@b.example>\r\n\r\nCheap watches.\r\n" $i $i >/home/maria/Mail/$i; done
    chown -R maria /home/maria/Mail'
  enter appliance spam train --spam /home/maria/Mail | tee "$work/trained"
  found '3 messages learned; in all 3 unwanted' <"$work/trained"
  enter appliance spam train --spam /home/maria/Mail | found '3 messages known from before'
}

# A key that root alone may read is copied when it is set, and what to do after its renewal is said.
key_of_root() {
  shell 'mkdir -p /etc/letsencrypt/live/x; chmod 700 /etc/letsencrypt/live; cd /etc/letsencrypt/live/x
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj /CN=own -addext subjectAltName=DNS:testbox.local -keyout privkey.pem -out fullchain.pem 2>/dev/null; chmod 600 privkey.pem'
  enter appliance tls set --cert /etc/letsencrypt/live/x/fullchain.pem --key /etc/letsencrypt/live/x/privkey.pem | tee "$work/set"
  found 'may not read /etc/letsencrypt/live/x/fullchain.pem' <"$work/set"
  found 'certbot does that by itself from now on' <"$work/set"
  shows_own
  enter appliance restart
  all_answer
  shows_own # the copy
  shell 'mkdir -p /etc/letsencrypt/renewal-hooks/deploy'
  shell "$(sed '1,/two lines:/d' "$work/set")" # as it says there
  shell 'cd /etc/letsencrypt/live/x
    openssl req -x509 -key privkey.pem -days 90 -subj /CN=renewed -addext subjectAltName=DNS:testbox.local -out fullchain.pem 2>/dev/null; /etc/letsencrypt/renewal-hooks/deploy/appliance'
  served | found 'CN *= *renewed'
  shell 'install -o appliance -m 700 -d /etc/mail-key; cd /etc/mail-key; cp /etc/letsencrypt/live/x/*.pem .; chown appliance *; chmod 600 *'
  enter appliance tls set --cert /etc/mail-key/fullchain.pem --key /etc/mail-key/privkey.pem | found 'When its files change, the new ones are'
  shell 'cd /etc/mail-key; openssl req -x509 -key privkey.pem -days 90 -subj /CN=watched -addext subjectAltName=DNS:testbox.local -out fullchain.pem 2>/dev/null'
  eventually 10 shows watched
  enter appliance tls unset
  shell 'rm -r /etc/letsencrypt /etc/mail-key'
}
served() { shell 'openssl s_client -connect 127.0.0.1:993 -servername testbox.local </dev/null 2>/dev/null | openssl x509 -noout -subject'; }
shows() { served | found "CN *= *$1"; }
shows_own() { shows own; }

security() {
  enter systemd-analyze security appliance --no-pager | tail -1 | tee "$work/security"
  enter systemd-analyze security appliance --threshold=20 --no-pager >/dev/null
}

under_systemd() {
  manager=systemd
  fresh systemd bookworm systemd,systemd-sysv,dbus,iproute2,procps,openssl || { note "no Debian with systemd is to be had"; return; }
  boot
  life systemd
  check "systemd: a process that hangs is started again" survives_hang
  check "systemd: reboot" reboot_it
  wait "$nspawn" || true # it ends with another status
  boot
  check "systemd: it answers after the reboot" answers
  check "systemd: install a second time" install_again
  check "systemd: upgrade" upgrade
  check "systemd: an upgrade that fails is taken back" failed_upgrade
  check "systemd: why it does not come up is said" told_why
  check "systemd: systemd-analyze security is below 2.0" security
  cat "$work/security"
  ends systemd
  check "systemd: uninstall again" uninstall_it
  check "systemd: a port that is taken" port_in_use
  check "systemd: a folder, a name and ports of one's own" elsewhere
  check "systemd: install takes over what was begun by hand" take_over
  check "systemd: the filter learns from a folder in a home" train_from_home
  check "systemd: a certificate whose key is root's alone" key_of_root
}

# under NAME TREE PACKAGES
under() {
  manager=$2
  fresh "$2" bookworm "$3" || { note "no Debian with $1 is to be had"; return; }
  boot
  life "$1"
  ends "$1"
}

for name in ${2:-systemd sysv openrc}; do
  case $name in
  systemd) under_systemd ;;
  sysv) under 'System V init' sysv sysvinit-core,sysv-rc,procps,iproute2 ;;
  openrc) under OpenRC openrc sysvinit-core,openrc,procps,iproute2 ;;
  esac
done
echo "service done"
