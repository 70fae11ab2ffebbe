#!/bin/bash
# A mailbox of 10 GB and 100,000 messages, indexed from nothing: how long it takes, the size of the index, and the most
# memory that the appliance had (VmHWM, which counts pages of mapped files too). Needs Go, and 15 GB below TMPDIR
# (else /var/tmp). Takes some ten minutes, most of them to write the messages.
#
#   bench/huge.sh [MESSAGES [BYTES]]   100,000 messages of 100,000 bytes on average
set -euo pipefail
cd "$(dirname "$0")/.."
messages=${1:-100000} bytes=${2:-100000} limit=$((128 * 1024))

work=$(mktemp -d -p "${TMPDIR:-/var/tmp}" appliance-huge.XXXXXX)
server=
cleanup() { [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }; rm -rf "$work"; }
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

go build -o "$work/appliance" .
go build -o "$work/bench" ./bench
echo huge-secret-1 | "$work/appliance" user add huge@bench.test --password-stdin --data "$work/data" >/dev/null
"$work/bench" fill "$work/data/mail/bench.test/huge" "$messages" "$bytes"
echo "$messages messages, $(du -sm --apparent-size "$work/data/mail" | cut -f1) MB"
sync

at=$("$work/bench" offset)
"$work/appliance" run --data "$work/data" --listen 127.0.0.1 --port-offset "$at" >"$work/log" 2>&1 &
server=$!
for _ in $(seq 200); do (exec 3<>"/dev/tcp/127.0.0.1/$((at + 993))") 2>/dev/null && break; sleep 0.05; done

peak() { awk '/VmHWM/ {print $2}' "/proc/$server/status"; }
ask() { # COMMAND
	local seconds
	seconds=$("$work/bench" run -imap "127.0.0.1:$((at + 993))" -big huge@bench.test -password huge-secret-1 -command "$1" ask | cut -d' ' -f2)
	printf '%-40s %8.2f s   peak %6.1f MiB   index %5d MB\n' "$1" "$seconds" "$(awk "BEGIN {print $(peak) / 1024}")" "$(du -sm "$work/data/index" | cut -f1)"
}
ask "NOOP"
ask "FETCH 1:* (ENVELOPE BODYSTRUCTURE)"
ask "SEARCH TEXT xyzzyplugh"
ask "SEARCH TEXT xyzzyplugh"
ask "SEARCH SUBJECT budget BODY garden"
most=$(peak)
echo "most memory: $((most / 1024)) MiB, limit $((limit / 1024))"
[ "$most" -lt "$limit" ]
