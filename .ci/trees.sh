# Trees of Debian to run the appliance in: to be sourced.

# Trees that are made are kept here, some 200 MB each.
trees=${APPLIANCE_CI_CACHE:-/var/cache/appliance-ci}

# note TEXT: what cannot be checked here, and why.
note() { echo "note: $*"; }

# need PROGRAM PACKAGE...: installs what is missing, as root.
need() {
  local program=$1
  shift
  command -v "$program" >/dev/null && return
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >/dev/null 2>&1 || true
  command -v "$program" >/dev/null
}

# tree NAME SUITE PACKAGES [VARIANT]: the folder of a tree with these packages, made when it is not there yet, or has others. The
# variant is one of mmdebstrap; "extract" is enough for files that run from anywhere.
tree() {
  local dir=$trees/$1
  if [ "$(cat "$dir.packages" 2>/dev/null)" != "$2 $3" ] || [ ! -d "$dir" ]; then
    mkdir -p "$trees"
    rm -rf "$dir.new" "$dir.packages"
    mmdebstrap --quiet --variant="${4:-minbase}" --include="$3" "$2" "$dir.new" >"$work/tree.log" 2>&1 || { rm -rf "$dir.new"; return 1; }
    rm -rf "$dir"
    mv "$dir.new" "$dir"
    echo "$2 $3" >"$dir.packages"
  fi
  echo "$dir"
}

# check NAME FUNCTION...: one line with the time it took, and what was said when it fails.
check() {
  local name=$1 status=0 begin
  shift
  begin=$(date +%s%N)
  set +e # in the condition of an if, the first failure would not end the check
  (set -euo pipefail; "$@") >"$work/out" 2>&1
  status=$?
  set -e
  if [ "$status" = 0 ]; then
    printf 'ok %s (%s)\n' "$name" "$(passed_since "$begin")"
  else
    printf 'FAILED %s (%s)\n' "$name" "$(passed_since "$begin")"
    tail -n 60 "$work/out"
    explain 2>&1 | tail -n 40
  fi
}

passed_since() {
  local ms=$((($(date +%s%N) - $1) / 1000000))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
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

# eventually SECONDS COMMAND...: tries until it succeeds.
eventually() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$end" ]; then "$@"; return; fi
    sleep 0.1
  done
}

# memory PID: what it has in memory, and what of that is its own (the rest is the file of the program).
memory() {
  awk '/^VmRSS/ {all = $2} /^RssAnon/ {own = $2} END {printf "%5.1f MB (%4.1f its own)", all / 1024, own / 1024}' "/proc/$1/status"
}

# greets PORT: whether a server on this machine says something there; the port alone is open before that.
greets() { (exec 3<>"/dev/tcp/127.0.0.1/$1" && read -r -t 60 line <&3 && [ -n "$line" ]) 2>/dev/null; }

# talk PORT LINE...: says lines to a server on this machine, each when the answer to the one before has come.
talk() {
  local port=$1 line
  shift
  exec 3<>"/dev/tcp/127.0.0.1/$port"
  read -r -t 60 line <&3
  for say in "$@"; do
    printf '%s\r\n' "$say" >&3
    while read -r -t 60 line <&3; do
      echo "$line"
      case $line in
      a\ * | 2??\ * | 3??\ *) break ;;
      4??\ * | 5??\ *) return 1 ;;
      esac
    done
  done
}

# unmount_below DIR: all that is mounted there, the last one first.
unmount_below() {
  local m
  for m in $(grep -o " $1/[^ ]*" /proc/mounts | sort -r); do umount -l "$m" || true; done
}

# clear_away DIR: removes it, unless something is still mounted there.
clear_away() {
  if grep -q " $1/" /proc/mounts; then
    note "$1 is left behind: something is mounted there"
  else
    rm -rf "$1"
  fi
}
