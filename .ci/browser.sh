#!/bin/bash
# The page in a real browser: browser.sh BINARY [FOLDER]. Debian's Chromium does what people do on the page (.ci/browser), at the
# widths of phones and desktops, in light and dark, in English and German, and axe-core looks for what shuts people out. All
# happens in a network of its own, which knows no other host. Pictures of all pages go into FOLDER. Prints a line for each
# check, "ok NAME" or "FAILED NAME" with the reason, and "browser done" at the end. Needs root, Debian's packages and npm, and says
# so where they are not to be had.
set -euo pipefail

skip() {
  echo "note: $1, the page is not tried in a browser"
  echo 'browser done'
  exit
}

if [ "${1:-}" = --inside ]; then # in namespaces of its own
  work=$2
  shift 2
  ip link set lo up
  ip addr add 192.168.77.1/32 dev lo
  ip addr add 192.168.77.2/32 dev lo
  ip addr add 1.1.1.1/32 dev lo
  echo 'nameserver 127.0.0.1' >"$work/resolv.conf"
  echo '127.0.0.1 localhost' >"$work/hosts"
  mount --bind "$work/resolv.conf" "$(readlink -f /etc/resolv.conf)"
  mount --bind "$work/hosts" /etc/hosts
  exec "$@"
fi

if [ "$(id -u)" != 0 ] || ! unshare --net --mount true 2>/dev/null; then skip 'no network namespaces can be made here'; fi
# package PROGRAM PACKAGE: installs what is missing.
package() {
  if command -v "$1" >/dev/null; then return; fi
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update >/dev/null &&
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$2" >/dev/null ||
    skip "there is no $2 here"
}
package chromium chromium
package npm npm
package xmllint libxml2-utils
package plistutil libplist-utils
package openssl openssl

self=$(readlink -f "$0") binary=$(readlink -f "$1") shots=${2:-}
work=$(mktemp -d /tmp/appliance-browser.XXXXXX)
trap 'rm -rf "$work"' EXIT
if [ -n "$shots" ]; then
  mkdir -p "$shots"
  shots=$(readlink -f "$shots")
fi
cd "$(dirname "$0")/browser"
go vet ./...
go build -o "$work/browser" .
cp plist.dtd "$work"
(cd "$work" && npm install --silent --no-audit --no-fund --ignore-scripts axe-core@4.14.1 >/dev/null) || skip 'npm does not give axe-core'
unshare --net --mount --pid --fork --kill-child --mount-proc bash "$self" --inside "$work" \
  "$work/browser" -binary "$binary" -axe "$work/node_modules/axe-core/axe.min.js" -work "$work" -shots "$shots" || true
echo 'browser done'
