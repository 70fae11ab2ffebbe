#!/bin/bash
# How fast the page is while mail comes in, and how much it costs the mail: web.sh [bench flags], such as -length 20s -rounds 5.
# 50 people are logged in and 8 connections deliver over SMTP, on loopback, every message durable on disk: first without the
# people, then while each opens a page a second, then while each opens one after the other. Prints the median of each figure
# and whether the goals are met: of 100 pages 99 within 100 ms, and mail not slower by more than a tenth, at a page a second.
# The work takes a minute or two and lies below TMPDIR (else /var/tmp).
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d -p "${TMPDIR:-/var/tmp}" appliance-bench.XXXXXX)
pid=
finish() {
	[ -z "$pid" ] || { kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; }
	rm -rf "$work"
}
trap finish EXIT
password=bench-secret-1 people=50
CGO_ENABLED=0 go build -trimpath -o "$work/appliance" .
go build -o "$work/bench" ./bench
offset=$("$work/bench" offset)
"$work/appliance" run --data "$work/data" --listen 127.0.0.1 --port-offset "$offset" --hostname bench.test >"$work/out" 2>"$work/log" &
pid=$!
for _ in $(seq 600); do grep -q '?code=' "$work/out" && break; sleep 0.1; done
for n in $(seq "$people") post; do
	printf '%s\n' "$password" | "$work/appliance" user add "person$n" --password-stdin --data "$work/data" >/dev/null
done
echo "   the machine's other work before: $("$work/bench" calm 60)"
"$work/bench" web -page "https://127.0.0.1:$((offset + 443))" -smtp "127.0.0.1:$((offset + 25))" -post personpost@bench.test \
	-crowd 'person%d@bench.test' -password "$password" -people "$people" "$@" >"$work/figures"
sort -k1,1 -k2,2g "$work/figures" | awk '
	function tell() { m = v[int((n + 1) / 2)]; median[name] = m; printf "   %-22s %12.4f  of %d\n", name, m, n }
	$1 != name { if (n) tell(); name = $1; n = 0 }
	{ v[++n] = $2 }
	END {
		tell()
		share = median["smtp_steady"] / median["smtp_alone"]
		printf "%s 99 of 100 pages within 100 ms while 8 connections deliver: %.0f ms\n", (median["page_p99_steady"] < 0.1 ? "ok" : "FAILED"), 1000 * median["page_p99_steady"]
		printf "%s mail is not slower by more than a tenth: %.1f %% of what it is alone\n", (share >= 0.9 ? "ok" : "FAILED"), 100 * share
	}'
echo 'web done'
