#!/bin/bash
# Sets the appliance beside Debian's Dovecot and Postfix: the same messages, the same work, in turns on this machine, all on
# loopback, every message durable on disk. Prints one table. Needs root and Go; the Debian packages are installed if they
# are missing. Nothing of the system's own Dovecot or Postfix is used but their programs, and nothing is left behind.
#
#   bench/compare.sh [-quick] [-n MESSAGES] [-big MESSAGES] [-rounds N] [-only "PART …"] [-patience SECONDS]
#
#   -n       messages in the mailbox that is read and changed    10,000
#   -big     messages in the large mailbox                      100,000
#   -rounds  turns of each server; the median counts                  3
#   -quick   1,000, 10,000 and 1, and less of everything else
#   -patience  how long each measurement waits for the machine to have nothing else to do   10
#   -only    these of the parts: open first read login pop3 change append smtp notice size loop sessions
#
# The work takes some ten minutes and 2 GB below TMPDIR (else /var/tmp), whose file system is the one that is measured.
set -euo pipefail
cd "$(dirname "$0")/.."

parts="open first read login pop3 change append smtp notice size loop sessions"
messages=10000 big=100000 rounds=3 samples=5 deliveries=400 appends=200 notices=50 sessions=500 patience=10
while [ $# -gt 0 ]; do
	case $1 in
	-quick) messages=1000 big=10000 rounds=1 samples=3 deliveries=100 appends=40 notices=10 sessions=100 ;;
	-n) messages=$2; shift ;;
	-big) big=$2; shift ;;
	-rounds) rounds=$2; shift ;;
	-only) parts=$2; shift ;;
	-patience) patience=$2; shift ;;
	*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done
[ "$(id -u)" = 0 ] || { echo "compare.sh: Dovecot and Postfix start only for root" >&2; exit 1; }

packages=
for need in dovecot:dovecot-imapd /usr/lib/dovecot/pop3:dovecot-pop3d /usr/lib/dovecot/lmtp:dovecot-lmtpd postfix:postfix openssl:openssl; do
	command -v "${need%%:*}" >/dev/null || packages="$packages ${need#*:}"
done
if [ -n "$packages" ]; then # policy-rc.d keeps the packages from starting anything
	[ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; }
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages >/dev/null
	rm -f /usr/sbin/policy-rc.d
fi

work=$(mktemp -d -p "${TMPDIR:-/var/tmp}" appliance-bench.XXXXXX)
chmod 755 "$work"
bench=$work/bench password=bench-secret-1 domain=bench.test owner=mail
ulimit -n 8192
declare -A pid # of the servers, each of which leads a process group: ours, dovecot, postfix

signal() { [ -z "${pid[$2]:-}" ] || kill "-$1" -- "-${pid[$2]}" 2>/dev/null || true; }
gone() { for _ in $(seq 200); do kill -0 -- "-$1" 2>/dev/null || return 0; sleep 0.05; done; return 1; }
stop() { # NAME …: ends servers in good order, after ten seconds by force
	local name
	for name; do
		[ -n "${pid[$name]:-}" ] || continue
		signal CONT "$name"
		kill "${pid[$name]}" 2>/dev/null || true
		gone "${pid[$name]}" || signal KILL "$name"
		gone "${pid[$name]}" || echo "compare.sh: $name does not end" >&2
		wait "${pid[$name]}" 2>/dev/null || true
		unset "pid[$name]"
	done
}
cleanup() {
	local status=$?
	trap - EXIT
	[ $status = 0 ] || tail -n 5 "$work"/*.log >&2 || true
	stop ours postfix dovecot
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

await() { # PORT
	for _ in $(seq 200); do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 0.05; done
	echo "compare.sh: port $1 does not answer" >&2
	return 1
}

start_ours() {
	setsid "$work/appliance" run --data "$work/data" --listen 127.0.0.1 --port-offset "$ours_at" >>"$work/ours.log" 2>&1 &
	pid[ours]=$!
	await $((ours_at + 993))
}
start_theirs() {
	setsid dovecot -F -c "$work/dovecot.conf" &
	pid[dovecot]=$!
	await $((theirs_at + 993))
	postfix -c "$work/postfix" start >>"$work/postfix-start.log" 2>&1
	pid[postfix]=$(tr -d ' ' <"$work/postfix-queue/pid/master.pid")
	await $((theirs_at + 25))
}
start() { case $1 in ours) start_ours ;; theirs) start_theirs ;; esac; }
members() { case $1 in ours) echo ours ;; theirs) echo dovecot postfix ;; esac; }

turn() { # SIDE: only this one runs, and has finished what it had to do
	local other=ours name
	[ "$1" = theirs ] || other=theirs
	for name in $(members "$1"); do signal CONT "$name"; done
	for name in $(members "$1"); do "$bench" settle "${pid[$name]}"; done
	for name in $(members "$other"); do signal STOP "$name"; done
	ready
}
measurements=0 busy=0
ready() { # before each measurement
	sync
	local share
	share=$("$bench" calm "$patience")
	measurements=$((measurements + 1))
	[ "${share% %}" -le 8 ] || busy=$((busy + 1))
}
measure() { # SIDE PART …: adds to its results
	local side=$1 at=$ours_at pids=${pid[ours]:-}
	shift
	[ "$side" = ours ] || at=$theirs_at pids=${pid[dovecot]:-}
	"$bench" run -imap 127.0.0.1:$((at + 993)) -pop3 127.0.0.1:$((at + 995)) -smtp 127.0.0.1:$((at + 25)) -password $password \
		-user bench@$domain -big big@$domain -small small@$domain -post post@$domain -crowd "u%d@$domain" -pids "$pids" \
		-samples $samples -deliveries $deliveries -appends $appends -notices $notices -sessions $sessions "$@"
}
wanted() { [[ " $parts " = *" $1 "* ]]; }
both() { # PART: in turns
	local side
	wanted "$1" || return 0
	for side in ours theirs; do
		turn $side
		measure $side "$1" >>"$work/$side.txt"
	done
}

# The mailboxes, for the appliance and, the same files, for Dovecot.
go build -o "$work/appliance" .
go build -o "$bench" ./bench
fill() { # ACCOUNT MESSAGES
	echo $password | "$work/appliance" user add "$1@$domain" --password-stdin --data "$work/data" >/dev/null
	"$bench" fill "$work/data/mail/$domain/$1" "$2"
}
fill bench "$messages"
fill big "$big"
fill small 100
fill post 100
for i in $(seq 0 24); do fill "u$i" 100; done
cp -a "$work/data/mail/$domain" "$work/theirs"
chown -R $owner: "$work/theirs"

# Dovecot as Debian has it, but for ports, places, what is durable, and limits that 500 sessions would reach.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout "$work/key" -out "$work/cert" 2>/dev/null
ours_at=$("$bench" offset) theirs_at=$("$bench" offset)
mkdir "$work/state"
cat >"$work/dovecot.conf" <<CONF
base_dir = $work/run
state_dir = $work/state
log_path = $work/dovecot.log
protocols = imap pop3 lmtp
listen = 127.0.0.1
ssl = required
ssl_cert = <$work/cert
ssl_key = <$work/key
mail_location = maildir:$work/theirs/%n
mail_fsync = always
mail_max_userip_connections = 1000
default_process_limit = 1200
default_client_limit = 5000
first_valid_uid = 1
namespace inbox {
  inbox = yes
  separator = /
}
passdb {
  driver = static
  args = password=$password
}
userdb {
  driver = static
  args = uid=$owner gid=$owner home=$work/theirs/%n
}
service imap-login {
  inet_listener imap {
    port = 0
  }
  inet_listener imaps {
    port = $((theirs_at + 993))
  }
}
service pop3-login {
  inet_listener pop3 {
    port = 0
  }
  inet_listener pop3s {
    port = $((theirs_at + 995))
  }
}
service lmtp {
  unix_listener lmtp {
    mode = 0666
  }
}
protocol lmtp {
  postmaster_address = postmaster@$domain
}
CONF

# Postfix as Debian has it, but for ports and places, and not in a chroot.
mkdir "$work/postfix" "$work/postfix-queue" "$work/postfix-data"
chown postfix "$work/postfix-data"
cat >"$work/postfix/main.cf" <<CONF
compatibility_level = 3.6
queue_directory = $work/postfix-queue
data_directory = $work/postfix-data
maillog_file = $work/postfix.log
maillog_file_prefixes = $work
myhostname = mail.$domain
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
virtual_mailbox_domains = $domain
virtual_transport = lmtp:unix:$work/run/lmtp
CONF
sed -E 's/^smtp +inet.*/127.0.0.1:'$((theirs_at + 25))' inet n - n - - smtpd/; s/^([a-z]+ +unix +[^ ]+ +[^ ]+ +)y/\1n/' /usr/share/postfix/master.cf.dist >"$work/postfix/master.cf"
postfix -c "$work/postfix" check 2>>"$work/postfix-start.log"

# Opening the large mailbox: all restarted each time.
forget() { # SIDE WHAT: while it is stopped, with "bare" also the UIDs
	case $1-$2 in
	ours-*) rm -rf "$work/data/index" ;;
	theirs-*) find "$work/theirs/big" -maxdepth 1 -name 'dovecot.*' -delete ;;
	esac
	[ "$2" != bare ] || rm -f "$work"/data/mail/$domain/big/dovecot-uidlist "$work"/theirs/big/dovecot-uidlist
}
open_big() { # SIDE NAME
	start "$1"
	measure "$1" open | sed "s/^open /open_$2 /" >>"$work/$1.txt"
	for name in $(members "$1"); do "$bench" settle "${pid[$name]}"; done
}
for _ in $(wanted open && seq "$rounds"); do
	for how in bare no_index restart; do
		for side in ours theirs; do
			[ $how = restart ] || forget $side $how
			ready
			open_big $side $how
			[ $how != restart ] || measure $side reopen >>"$work/$side.txt"
			stop $(members $side)
		done
	done
done

# Everything else: in turns.
start ours
start theirs
tls_ours=$(measure ours tls) tls_theirs=$(measure theirs tls)
[ "$tls_ours" = "$tls_theirs" ] || echo "compare.sh: TLS differs: $tls_ours here, $tls_theirs there" >&2
both first
for _ in $(seq "$rounds"); do
	for part in read login pop3 change append smtp notice size; do both $part; done
	wanted loop || continue
	for name in ours dovecot postfix; do signal STOP $name; done
	ready
	"$bench" loop -n $((2 * deliveries)) "$work" >>"$work/ours.txt"
done
stop ours postfix dovecot

# Memory: of servers that have done nothing else.
for side in $(wanted sessions && echo ours theirs); do
	start $side
	ready
	measure $side sessions >>"$work/$side.txt"
	stop $(members $side)
done

cat <<HEAD
$(date -u +%Y-%m-%d), $(git describe --always --dirty 2>/dev/null || echo "no git"), $(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(awk '/MemTotal/ {printf "%.0f", $2/1e6}' /proc/meminfo) GB, $(stat -f -c %T "$work"), Linux $(uname -r)
$(go version | cut -d' ' -f3), Dovecot $(dovecot --version | cut -d' ' -f1), Postfix $(postconf -c "$work/postfix" -h mail_version); $tls_ours
$messages messages, the large mailbox $big, $rounds turns, $sessions idle sessions; the machine was busy with other work before $busy of $measurements measurements

HEAD
"$bench" table "$work/ours.txt" "$work/theirs.txt"
