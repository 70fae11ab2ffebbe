#!/bin/bash
# Windows, as far as wine 10 and an NTFS show it: wine.sh [PARTS]. The tests of the store and the protocols run as Windows programs in a
# Debian 13 tree with wine 10 (the wine of Debian 12 cannot start what Go builds), then the life of the service, then files on
# an NTFS that takes the names that Windows takes. Prints a line for each check, "ok NAME (TIME)" or "FAILED NAME" with the
# output, and "wine done" at the end. Needs root; where something is missing it says so. What this cannot show stands in
# service_windows.go.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d /tmp/appliance-wine.XXXXXX)
source .ci/trees.sh

root='' hold='' loop=''
cleanup() {
  if [ -n "$root" ]; then
    inside timeout 20 wineserver -k || true
    if [ -n "$hold" ]; then wait "$hold" 2>/dev/null || true; fi
  fi
  sleep 0.5
  unmount_below "$work"
  if [ -n "$loop" ]; then losetup -d "$loop" || true; fi
  clear_away "$work"
}
trap cleanup EXIT

skip() {
  note "$*: skip Windows under wine"
  echo "wine done"
  exit
}
[ "$(id -u)" = 0 ] || skip "only root can enter a tree"
need mmdebstrap mmdebstrap || skip "mmdebstrap is not to be had"
need unshare util-linux || skip "unshare is not to be had"
from=$(tree wine trixie wine,wine64,procps,ca-certificates) || skip "no Debian with wine 10 is to be had"

# The tree of the cache below what is written in this run.
mkdir -p "$work/root" "$work/upper" "$work/layer" "$work/share"
if mount -t overlay -o "lowerdir=$from,upperdir=$work/upper,workdir=$work/layer" overlay "$work/root" 2>/dev/null; then
  root=$work/root
else
  mount -t tmpfs -o size=3g tmpfs "$work/root"
  root=$work/root
  cp -a "$from/." "$root"
fi
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for d in null zero urandom random full tty; do
  : >"$root/dev/$d"
  mount --bind "/dev/$d" "$root/dev/$d"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
mkdir -p "$root/$work"
mount --bind "$work" "$root/$work"
mkdir -p "$root/$PWD"
mount --bind "$PWD" "$root/$PWD"
mount -o remount,bind,ro "$root/$PWD"

# inside [NAME=VALUE...] COMMAND...: runs it in the tree.
inside() {
  chroot "$root" env -i -C "${from_dir:-/}" HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 XDG_RUNTIME_DIR=/tmp \
    WINEDEBUG=-all WINEARCH=win64 WINEPREFIX="$work/share/prefix" "$@"
}
server() { inside wineserver "$@"; }
windows() { inside ${extra:-} timeout 120 wine "$@" | tr -d '\r'; }

explain() { [ -z "$root" ] || cat "$work"/share/prefix/drive_c/ProgramData/appliance/log/appliance.log 2>/dev/null || true; }

# ---------------------------------------------------------------- tests

build() {
  GOOS=windows CGO_ENABLED=0 go test -c -trimpath -o "$work/tests.exe" .
  GOOS=windows CGO_ENABLED=0 go build -trimpath -tags winetest -o "$work/appliance.exe" .
}
prefix() { windows wineboot -i >/dev/null; server -w || true; [ -d "$work/share/prefix/drive_c/windows" ]; }

# tests DIR PATTERN: the tests with these names, their files below a folder of Windows. Left out is what needs more than wine has
# (a UDP port), and what another program does to files that Windows does not let it do.
tests() {
  windows reg add 'HKCU\Environment' /v TEMP /d "$1" /f >/dev/null
  windows reg add 'HKCU\Environment' /v TMP /d "$1" /f >/dev/null
  windows cmd /c 'echo %TEMP%' | found -F "$1"
  from_dir=$PWD inside timeout 400 wine "$work/tests.exe" -test.short -test.timeout 380s -test.run "$2" \
    -test.skip '^Test(POP3Transcripts|SMTPTranscripts|IMAPNotifyOtherPrograms|IMAPNotifyOverflow|IMAPProgress)$' | tr -d '\r' | tail -n 60
}

# carried: a data folder goes from Linux to Windows and back; the test runs here and starts the program in the tree.
carried() {
  cat >"$work/run-windows" <<END
#!/bin/bash
exec chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 XDG_RUNTIME_DIR=/tmp WINEDEBUG=-all WINEARCH=win64 WINEPREFIX="$work/share/prefix" wine "\$@"
END
  chmod +x "$work/run-windows"
  TMPDIR=$work APPLIANCE_TEST_WINE=$work/run-windows APPLIANCE_TEST_WINDOWS_PROGRAM=$work/appliance.exe \
    go test -count=1 -v -run '^TestCarryWindows$' . | tee "$work/carried"
  found '^--- PASS: TestCarryWindows' <"$work/carried" # and not skipped
}

# ---------------------------------------------------------------- the service

# Wine's service manager lives only while some program runs: one that reads a pipe into which nobody writes.
up() {
  rm -f "$work/share/hold"
  mkfifo "$work/share/hold"
  inside wine cmd /c more <>"$work/share/hold" >/dev/null 2>&1 &
  hold=$!
  sleep 3
}
down() {
  server -k || true
  wait "$hold" 2>/dev/null || true
  hold=''
}

data=$work/share/prefix/drive_c/ProgramData/appliance
program='C:\Program Files\appliance\appliance.exe'
offset=$((20000 + $$ % 10000)) # the ports of this machine are not the test's alone
answers() { bash -c 'exec 3<>/dev/tcp/127.0.0.1/$0 && IFS= read -r -t 10 line <&3 && [ "${line:0:4}" = "* OK" ]' "$((143 + offset))"; }
closed() { ! answers; }

install_it() {
  mkdir -p "$work/share/prefix/drive_c/new"
  cp "$work/appliance.exe" "$work/share/prefix/drive_c/new/appliance.exe"
  extra=USERNAME=maria windows 'C:\new\appliance.exe' install --listen 127.0.0.1 --port-offset "$offset" --hostname mail.home.lan | tee "$work/installed"
  found 'as a service of Windows' <"$work/installed"
  found '^  Password  ' <"$work/installed"
  answers
  windows sc query appliance | found 'RUNNING'
  [ -s "$data/accounts.toml" ]
  ! grep -r "$(sed -n 's/^  Password *//p' "$work/installed")" "$data/log"
}
status_shows() {
  windows "$program" status | tee "$work/status"
  found 'of Windows, starts with the machine' <"$work/status"
  windows "$program" log -n 50 | found 'msg=listening'
}
more_people() { windows "$program" user add bob | found 'bob@mail.home.lan has an account now'; }
stop_and_start() {
  windows net stop appliance
  closed
  windows "$program" start | found 'runs'
  answers
  windows "$program" restart | found 'runs'
  answers
  windows "$program" stop | found 'stopped'
  closed
  windows net start appliance
  eventually 20 answers
}
install_again() {
  printf 'a newer version' >>"$work/share/prefix/drive_c/new/appliance.exe"
  windows 'C:\new\appliance.exe' install | tee "$work/again" # with the flags of the last time
  found 'the accounts that it had: .*@mail.home.lan and 1 more' <"$work/again"
  cmp "$work/share/prefix/drive_c/new/appliance.exe" "$work/share/prefix/drive_c/Program Files/appliance/appliance.exe"
  answers
}
failed_upgrade() {
  cp "$work/share/prefix/drive_c/new/appliance.exe" "$work/good"
  printf 'MZ, but no program' >"$work/share/prefix/drive_c/new/broken.bin"
  echo 'colour = 1' >>"$data/settings.toml"
  printf ', and newer' >>"$work/share/prefix/drive_c/new/appliance.exe"
  windows 'C:\new\appliance.exe' install >"$work/failed" 2>&1 || true
  cat "$work/failed"
  found 'settings.toml' <"$work/failed"
  cmp "$work/good" "$work/share/prefix/drive_c/Program Files/appliance/appliance.exe"
  sed -i /colour/d "$data/settings.toml"
  windows "$program" restart | found 'runs' || windows "$program" start | found runs
  answers
}
gone() { windows sc query appliance | found STATE; }
uninstall_it() {
  windows 'C:\new\appliance.exe' uninstall | tee "$work/uninstalled"
  found 'stay in C:\\ProgramData\\appliance' <"$work/uninstalled"
  closed
  [ ! -e "$work/share/prefix/drive_c/Program Files/appliance" ]
  [ -s "$data/accounts.toml" ]
  must_fail 1 gone
}

# ---------------------------------------------------------------- names

ntfs() {
  need mkntfs ntfs-3g && [ -e /dev/loop-control ] || return 1
  truncate -s 256M "$work/nt.img"
  mkntfs -qF "$work/nt.img" >/dev/null 2>&1 || return 1
  mkdir -p "$work/nt"
  loop=$(losetup -f --show "$work/nt.img") || return 1
  ntfs-3g -o windows_names "$loop" "$work/nt" 2>/dev/null || { losetup -d "$loop"; loop=''; return 1; }
  mount --bind "$work/nt" "$root/$work/nt"
}
names_refused() { ! touch "$work/nt/a:2,S" 2>/dev/null && ! touch "$work/nt/con" 2>/dev/null; }

tests_run() {
  check 'windows: tests of names and files' tests 'C:\users' "^Test($files|FolderModel|ManyKeywords|OthersTouchTheMaildir|Move(TakesNewestFlags|Crossing|Disk|Disturbed)|View.*|Watch.*)\$"
  check 'windows: tests of the protocols' tests 'C:\users' \
    '^Test(IMAP|POP3|SMTP|CommandsUpAndDown|ChangesReach|Log|Tail|RecentTroubles|ReasonIn|Status|FirstAccountIs|Control|SecondAppliance|PortsInUse|Broken)'
}
folder_is_carried() {
  check 'windows: a data folder goes there and back' carried
  sed -n 's/^.*carry_test.go:[0-9]*: /   /p' "$work/carried" 2>/dev/null || true
}
service_lives() {
  up
  check 'windows: install' install_it
  check 'windows: status, log' status_shows
  check 'windows: an account more' more_people
  check 'windows: stop, start, restart' stop_and_start
  down
  up
  check 'windows: after a restart of the machine' eventually 30 answers
  check 'windows: install a second time' install_again
  check 'windows: an upgrade that fails is taken back' failed_upgrade
  check 'windows: uninstall leaves nothing but the data' uninstall_it
  down
}
names_are_right() {
  if ntfs; then
    check 'NTFS: it refuses the names that Windows refuses' names_refused
    check 'NTFS: tests of names and files' tests "Z:${work//\//\\}\\nt" "^Test($files)\$"
  else
    note "no NTFS can be mounted here: skip file names on one"
  fi
}

files='Windows.*|UIDList.*|MUTF7.*|Restarts|CopyAndMove|RenameAndDeleteFolders|SetAside|DeliveryIsSeenAtOnce|FlagsAfterCrash|Spelling|DefaultFolders'
check 'windows: build' build
check 'windows: wine starts' prefix
[ -e "$work/tests.exe" ] && [ -e "$work/appliance.exe" ] || exit
for part in ${1:-tests carry service names}; do
  case $part in
  tests) tests_run ;;
  carry) folder_is_carried ;;
  service) service_lives ;;
  names) names_are_right ;;
  esac
done
echo "wine done"
