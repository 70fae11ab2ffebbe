#!/bin/bash
# Does a device find the appliance by multicast DNS? mdns.sh BINARY. Two network namespaces stand for two machines
# on one network: in one the appliance, in the other Debian's avahi-daemon and avahi-browse. Then Avahi runs
# beside the appliance. Prints a line for each check, "ok NAME" or "FAILED NAME" with the output, and "mdns done" at
# the end. Needs root and Debian's packages, and says so where they are not to be had.
set -euo pipefail

if [ "$(id -u)" != 0 ] || ! ip netns add appliance-probe-$$ 2>/dev/null; then
  echo 'note: no network namespaces can be made here, multicast DNS is not tried with Avahi'
  echo 'mdns done'
  exit
fi
ip netns del appliance-probe-$$
for tool in avahi-daemon avahi-browse avahi-resolve dbus-daemon; do
  if ! command -v $tool >/dev/null; then
    echo "note: there is no $tool here, multicast DNS is not tried with Avahi"
    echo 'mdns done'
    exit
  fi
done

binary=$(readlink -f "$1")
work=$(mktemp -d /tmp/appliance-mdns.XXXXXX)
box=appliance-box-$$ phone=appliance-phone-$$
pids=()
finish() {
  local p
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  wait 2>/dev/null || true
  ip netns del "$box" 2>/dev/null || true
  ip netns del "$phone" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

for ns in "$box" "$phone"; do
  ip netns add "$ns"
  ip -n "$ns" link set lo up
done
ip -n "$box" link add eth0 type veth peer name eth0 netns "$phone"
ip -n "$box" addr add 192.168.77.1/24 dev eth0
ip -n "$phone" addr add 192.168.77.2/24 dev eth0
ip -n "$box" link set eth0 up
ip -n "$phone" link set eth0 up

# avahi NAMESPACE HOST: a machine's own Avahi, with a bus of its own.
avahi() {
  local ns=$1 dir="$work/$1"
  mkdir -p "$dir"
  cat >"$dir/bus.conf" <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=$dir/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>
END
  printf '[server]\nhost-name=%s\nuse-ipv4=yes\nuse-ipv6=no\nallow-interfaces=eth0\n[rlimits]\n' "$2" >"$dir/avahi.conf"
  DBUS_SYSTEM_BUS_ADDRESS=unix:path=$dir/bus ip netns exec "$ns" dbus-daemon --config-file="$dir/bus.conf" --nofork --nopidfile >"$dir/dbus.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 100); do [ -S "$dir/bus" ] && break; sleep 0.1; done
  # A mount namespace of its own: there is one /run/avahi-daemon for both.
  DBUS_SYSTEM_BUS_ADDRESS=unix:path=$dir/bus ip netns exec "$ns" unshare --mount sh -c 'mount -t tmpfs tmpfs /run && exec avahi-daemon --no-drop-root --no-chroot --no-rlimits -f "$1"' sh "$dir/avahi.conf" >"$dir/avahi.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 300); do grep -q 'Server startup complete' "$dir/avahi.log" && return; sleep 0.1; done
  cat "$dir/avahi.log"
  return 1
}
on() { DBUS_SYSTEM_BUS_ADDRESS=unix:path=$work/$1/bus ip netns exec "$@"; }

appliance=
start() {
  mkdir -p "$work/data"
  ip netns exec "$box" "$binary" run --data "$work/data" --hostname kitchen.local --port-offset 1000 >"$work/out" 2>"$work/log" &
  appliance=$!
  pids+=("$appliance")
  for _ in $(seq 600); do grep -q 'protocol=mdns' "$work/log" && return; sleep 0.1; done
  cat "$work/log"
  return 1
}
stop() {
  kill "$appliance"
  wait "$appliance" || true
}

check() {
  local name=$1
  shift
  if (set -euo pipefail; "$@") >"$work/check" 2>&1; then
    echo "ok $name"
  else
    echo "FAILED $name"
    tail -n 50 "$work/check" "$work/log"
  fi
}

# Avahi asks for a second or so; a busy machine may take longer to answer.
seen() {
  local n
  for n in 1 2 3 4 5 6; do
    "$@" >"$work/seen" 2>&1 || true
    if grep -qE "$pattern" "$work/seen"; then return; fi
    sleep 1
  done
  cat "$work/seen"
  return 1
}
browse() { pattern="^=;eth0;IPv4;kitchen;[^;]*;local;kitchen\\.local;192\\.168\\.77\\.1;$2;" seen on "$phone" avahi-browse -rpt "$1"; }
resolve() { pattern=$'^kitchen\\.local\t192\\.168\\.77\\.1$' seen on "$phone" avahi-resolve -4 -n kitchen.local; }
gone() { # what was taken back is known for a second yet (RFC 6762 §10.1)
  local n
  for n in 1 2 3 4 5 6; do
    sleep 1
    on "$phone" avahi-browse -pt _imaps._tcp >"$work/seen"
    if ! grep -q kitchen "$work/seen"; then return; fi
  done
  cat "$work/seen"
  return 1
}
still_avahis() {
  grep -q 'host_by_another_program=true' "$work/log"
  ! grep -qi 'host name conflict' "$work/$box/avahi.log"
}

avahi "$phone" phone
start
check 'avahi-resolve finds kitchen.local' resolve
check 'avahi-browse finds IMAP' browse _imaps._tcp 1993
check 'avahi-browse finds submission' browse _submissions._tcp 1465
check 'avahi-browse finds the page' browse _https._tcp 1443
stop
check 'it says goodbye' gone
avahi "$box" kitchen
start
check 'the name is left to an Avahi beside it' still_avahis
check 'avahi-resolve finds kitchen.local beside Avahi' resolve
check 'avahi-browse finds IMAP beside Avahi' browse _imaps._tcp 1993
stop
echo 'mdns done'
