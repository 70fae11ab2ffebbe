#!/bin/bash
# The processors of small machines: arm.sh DIR [NAMES] runs the tests of the store and the protocols for arm64, for the ARMv6 of a Pi
# Zero, and for 32 bits (386, under qemu as well where the system has no way for it), and measures how long a start takes and how
# much memory the appliance has, at first and after a login and a delivery. Prints a line for each check, the table, and "arm done"
# at the end; DIR is for what is built. qemu is taken from Debian 13, as that of Debian 12 cannot run what Go builds for 386; for that it
# needs root and mmdebstrap, and says so where they are missing. Times under qemu can be compared with one another only, and
# memory is qemu's own there; .ci/armvm.sh boots a whole machine.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
dir=$(readlink -f "$1")
work=$dir
source .ci/trees.sh

# What is run: files and locks of the store, transcripts and sessions of the protocols, hashes and signatures, and what counts
# bits. Tests of speed and those that need a second program are left out, and so is what takes minutes under qemu.
focus='^(TestIMAPTranscripts|TestPOP3Transcripts|TestSMTPTranscripts|TestIMAPPipelining|TestIMAPCompress|TestIMAPSets|TestIMAPDates|TestIMAPWriter|TestSMTPBodies|TestSMTPSmuggling|TestSMTPRecipients|TestPOP3UIDLIsStable|TestPOP3SizesAreWhatIsSent'\
'|TestOthersTouchTheMaildir|TestForeignListKept|TestList.*|TestFlagJournalDamage|TestPendingFlags.*|TestJournalIsKnown|TestManyKeywords|TestMoreKeywordsFile|TestKeywordLimit|TestUID.*|TestRestarts|TestRenameAndDeleteFolders|TestCopyAndMove|TestIncoming|TestIndex.*|TestLargeValues|TestTextEntry.*|TestTextBlock|TestWatch.*|TestMUTF7.*|TestSpelling|TestInflate.*'\
'|TestQueueRestart|TestQueueSends|TestQueueDamage|TestDKIMSigner|TestSCRAMExampleOfRFC7677|TestCertificates|TestParseNTP|TestSizes|TestCheckNothingWrong|TestCarryNames|TestFreeSpace|TestVersionOf)$'

# The transcripts with many logins are left out: a password takes seconds there, and is the same work each time.
left='^TestIMAPTranscripts$/^(acl_.*|shared|authenticate|notify.*|context|partial|quota|progress)$'
# Many are waiting for clocks, so the limit is one of work: a busy machine shall not fail them.
limit=400 # seconds of the processor

qemu=
if [ "$(id -u)" = 0 ] && need mmdebstrap mmdebstrap; then
  qemu=$(tree qemu trixie qemu-user extract) || qemu=
fi

# emulator NAME: the program that runs those of another processor, "" where there is none.
emulator() {
  if [ -n "$qemu" ]; then
    echo "$qemu/usr/bin/qemu-$1"
  elif [ "$1" != i386 ]; then
    command -v "qemu-$1-static" || true
  fi
}

# tests NAME RUN ENVIRONMENT...: compiles the tests and runs them, by RUN where that is not empty.
tests() {
  local name=$1 begin=$SECONDS status=0
  read -ra how <<<"$2"
  shift 2
  env CGO_ENABLED=0 "$@" go test -c -trimpath -o "$dir/$name.test" . || { echo "FAILED $name: the tests do not compile"; return; }
  local built=$SECONDS
  (
    ulimit -t "$limit"
    timeout 1800 "${how[@]}" "$dir/$name.test" -test.v -test.short -test.timeout 30m -test.run "$focus" -test.skip "$left"
  ) >"$dir/$name.log" 2>&1 || status=$?
  if [ "$status" = 0 ]; then
    echo "ok the store and the protocols on $name ($((built - begin)) s to compile, $((SECONDS - built)) s for $(grep -c '^--- PASS' "$dir/$name.log") tests)"
  else
    echo "FAILED the store and the protocols on $name (status $status)"
    grep -vE '^ *(=== |--- (PASS|SKIP))|^PASS' "$dir/$name.log" | tail -n 60
  fi
}

# use OFFSET: a delivery, and a login that sees it.
use() {
  talk $((25 + $1)) 'EHLO localhost' 'MAIL FROM:<friend@example.org>' 'RCPT TO:<maria@measured.lan>' DATA "$(printf 'Subject: measured\r\n\r\nHello.\r\n.')" QUIT >/dev/null &&
    talk $((143 + $1)) 'a LOGIN maria correct-horse' 'a SELECT INBOX' 'a FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[])' 'a LOGOUT' | found 'Subject: measured'
}

# measure NAME RUN PROGRAM: the time until it greets, at the first start, which makes keys, and the best of two later ones; the
# memory a second after that, and after a delivery and a login.
measure() {
  local name=$1 first=0 best='' started='' used='' offset=$((10000 + $$ % 21000)) data=$dir/data-$1
  read -ra how <<<"$2"
  rm -rf "$data"
  mkdir "$data"
  echo "domain = 'measured.lan'" >"$data/settings.toml"
  echo correct-horse | "${how[@]}" "$3" user add maria --password-stdin --data "$data" >"$dir/said" 2>&1 || { echo "FAILED $name: no account"; cat "$dir/said"; return; }
  for round in 1 2 3; do
    local begin now
    begin=$(date +%s%N)
    "${how[@]}" "$3" run --data "$data" --listen 127.0.0.1 --port-offset "$offset" >"$dir/said" 2>&1 &
    local pid=$!
    for _ in $(seq 1500); do
      greets $((offset + 143)) && break
      sleep 0.02
    done
    now=$((($(date +%s%N) - begin) / 1000000))
    if [ "$round" = 1 ]; then first=$now; elif [ -z "$best" ] || [ "$now" -lt "$best" ]; then best=$now; fi
    sleep 1
    started=$(memory "$pid" || true)
    if [ "$round" = 3 ]; then
      (use "$offset") || { echo "FAILED $name: a delivery and a login"; cat "$dir/said"; }
      used=$(memory "$pid" || true)
    fi
    kill "$pid" || true
    wait "$pid" || { echo "FAILED the appliance on $name ended with $?"; cat "$dir/said"; return; }
  done
  printf '   %-18s file %4.1f MB   start %5d ms, the first %5d ms   memory %s, in use %s\n' \
    "$name" "$(wc -c <"$3")e-6" "$best" "$first" "$started" "$used"
  echo "ok a delivery and a login on $name"
}

# program NAME ENVIRONMENT...: builds the appliance as it is released.
program() {
  local out=$dir/appliance-$1
  shift
  env CGO_ENABLED=0 GOFLAGS= "$@" go build -trimpath -ldflags '-s -w' -o "$out" . && echo "$out"
}

# can_run GOARCH: whether this machine runs such programs by itself; many systems of 64 bits have no way for those of 32.
can_run() {
  mkdir -p "$dir/can"
  printf 'package main\n\nfunc main() {}\n' >"$dir/can/main.go"
  CGO_ENABLED=0 GOARCH=$1 go build -o "$dir/can/$1" "$dir/can/main.go" && "$dir/can/$1" 2>/dev/null
}

# native: this machine's own processor, to compare with.
native() { measure amd64 '' "$(program amd64 GOARCH=amd64)"; }

bits32() {
  local by='' mark=''
  if ! can_run 386; then
    by=$(emulator i386) mark=', qemu'
    [ -n "$by" ] || { note "programs of 32 bits do not run here, and there is no qemu for them: skip 386"; return; }
  fi
  tests 386 "$by" GOARCH=386
  measure "386$mark" "$by" "$(program 386 GOARCH=386)"
}

# other NAME EMULATOR OPTIONS ENVIRONMENT...: a processor that this machine has not.
other() {
  local name=$1 by
  by=$(emulator "$2")
  [ -n "$by" ] || { note "there is no qemu here: skip $name"; return; }
  by="$by $3"
  shift 3
  tests "$name" "$by" "$@"
  measure "$name, qemu" "$by" "$(program "$name" "$@")"
}

for name in ${2:-amd64 386 arm64 armv6}; do
  case $name in
  amd64) native ;;
  386) bits32 ;;
  arm64) other arm64 aarch64 '' GOARCH=arm64 ;;
  armv6) other armv6 arm '-cpu arm1176' GOARCH=arm GOARM=6 ;;
  esac
done
echo "arm done"
