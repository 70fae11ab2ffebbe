#!/bin/bash
# Sets the appliance beside Debian's Dovecot: the same Maildir, the same work, one after the other on this machine, all on
# loopback. Prints one table. Needs root and the packages dovecot-imapd and dovecot-pop3d (installed if apt can).
#   bench/compare.sh [MESSAGES]      default 10,000
set -euo pipefail
cd "$(dirname "$0")/.."
messages=${1:-10000}
command -v dovecot >/dev/null || apt-get install -y dovecot-imapd dovecot-pop3d >/dev/null
work=$(mktemp -d /tmp/appliance-bench.XXXXXX)
chmod 755 "$work"
pids=()
stop() { for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; sleep 0.5; rm -rf "$work"; }
trap stop EXIT

go build -o "$work/appliance" .
go build -o "$work/bench" ./bench
await() { for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 0.05; done; echo "port $1 does not answer" >&2; exit 1; }

# The appliance.
echo bench-secret-1 | "$work/appliance" user add bench@bench.test --password-stdin --data "$work/data" >/dev/null
"$work/bench" fill "$work/data/mail/bench.test/bench" "$messages"
cp -a "$work/data/mail/bench.test/bench" "$work/theirs"
"$work/appliance" run --data "$work/data" --listen 127.0.0.1 --port-offset 23000 >"$work/log" 2>&1 &
pids+=($!)
await 23993
"$work/bench" run -imap 127.0.0.1:23993 -pop3 127.0.0.1:23995 -smtp 127.0.0.1:23025 -to bench@bench.test -user bench@bench.test -password bench-secret-1 >"$work/ours.txt"
kill "${pids[0]}"; wait "${pids[0]}" || true

# Dovecot.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout "$work/key" -out "$work/cert" 2>/dev/null
id bench-mail >/dev/null 2>&1 || useradd --system --no-create-home bench-mail
cat >"$work/dovecot.conf" <<CONF
base_dir = $work/run
state_dir = $work/state
log_path = $work/dovecot.log
protocols = imap pop3
listen = 127.0.0.1
ssl = required
ssl_cert = <$work/cert
ssl_key = <$work/key
mail_location = maildir:$work/theirs
mail_fsync = always
first_valid_uid = 1
namespace inbox {
  inbox = yes
  separator = /
}
passdb {
  driver = static
  args = password=bench-secret-1
}
userdb {
  driver = static
  args = uid=bench-mail gid=bench-mail home=$work/theirs
}
service imap-login {
  inet_listener imap {
    port = 0
  }
  inet_listener imaps {
    port = 24993
  }
}
service pop3-login {
  inet_listener pop3 {
    port = 0
  }
  inet_listener pop3s {
    port = 24995
  }
}
CONF
mkdir -p "$work/state"
chown -R bench-mail: "$work/theirs"
dovecot -F -c "$work/dovecot.conf" &
pids+=($!)
await 24993
"$work/bench" run -imap 127.0.0.1:24993 -pop3 127.0.0.1:24995 -user bench -password bench-secret-1 >"$work/theirs.txt"

echo "$(nproc) cores, $(go version | cut -d' ' -f3), Dovecot $(dovecot --version | cut -d' ' -f1), $messages messages; seconds"
"$work/bench" table "$work/ours.txt" "$work/theirs.txt"
grep SMTP "$work/ours.txt" || true
