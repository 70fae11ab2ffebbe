#!/bin/bash
# The processors of small machines: arm.sh DIR runs the tests of the store and the protocols for arm64, for the ARMv6 of a Pi
# Zero, and for 32 bits (386, under qemu as well where the system has no way for it), and measures on amd64 and arm64 how long
# a start takes and how much memory an idle appliance has. Prints a line for each check and the table; DIR is for what is
# built. Needs Debian's qemu-user-static, which it installs as root. Times under qemu can be compared with one another only, and its
# memory says nothing of a real machine; .ci/armvm.sh boots a whole one.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1
mkdir -p "$dir"

# What is run: files and locks of the store, transcripts and sessions of the protocols, hashes and signatures, and what counts
# bits. Tests of speed and those that need a second program are left out, and so is what takes minutes under qemu.
focus='^(TestIMAPTranscripts|TestPOP3Transcripts|TestSMTPTranscripts|TestIMAPPipelining|TestIMAPCompress|TestIMAPSets|TestIMAPDates|TestIMAPWriter|TestSMTPBodies|TestSMTPSmuggling|TestSMTPRecipients|TestPOP3UIDLIsStable|TestPOP3SizesAreWhatIsSent'\
'|TestOthersTouchTheMaildir|TestForeignListKept|TestList.*|TestFlagJournalDamage|TestPendingFlags.*|TestJournalIsKnown|TestManyKeywords|TestMoreKeywordsFile|TestKeywordLimit|TestUID.*|TestRestarts|TestRenameAndDeleteFolders|TestCopyAndMove|TestIncoming|TestIndex.*|TestLargeValues|TestTextEntry.*|TestTextBlock|TestWatch.*|TestMUTF7.*|TestSpelling|TestInflate.*'\
'|TestQueueRestart|TestQueueSends|TestQueueDamage|TestDKIMKeys|TestDKIMSigner|TestSCRAMExampleOfRFC7677|TestCertificates|TestParseNTP|TestSizes|TestCheckNothingWrong|TestCarryNames|TestFreeSpace|TestVersionOf)$'

if ! command -v qemu-aarch64-static >/dev/null && [ "$(id -u)" = 0 ]; then
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends qemu-user-static >/dev/null 2>&1 || true
fi

# tests NAME LIMIT RUN ENVIRONMENT...: compiles the tests and runs them, by RUN where that is not empty.
tests() {
  local name=$1 limit=$2 begin=$SECONDS status=0
  read -ra how <<<"$3"
  shift 3
  env CGO_ENABLED=0 "$@" go test -c -trimpath -o "$dir/$name.test" . || { echo "FAILED $name: the tests do not compile"; return; }
  timeout "$limit" "${how[@]}" "$dir/$name.test" -test.short -test.run "$focus" >"$dir/$name.log" 2>&1 || status=$?
  if [ "$status" = 0 ]; then
    echo "ok the store and the protocols on $name ($((SECONDS - begin)) s)"
  else
    echo "FAILED the store and the protocols on $name (status $status)"
    tail -n 60 "$dir/$name.log"
  fi
}

# measure NAME RUN PROGRAM: the time until the ports answer, the best of three, and the memory after a second without work.
measure() {
  local name=$1 first=0 best='' memory=0 offset=$((10000 + $$ % 21000)) data
  read -ra how <<<"$2"
  for round in 1 2 3; do
    data=$dir/data-$name-$round
    [ "$round" = 1 ] || data=$dir/data-$name-1 # the first start makes keys, the later ones are what a machine does each day
    local begin now
    begin=$(date +%s%N)
    "${how[@]}" "$3" run --data "$data" --listen 127.0.0.1 --port-offset "$offset" >"$dir/said-$name" 2>&1 &
    local pid=$!
    for _ in $(seq 600); do
      (exec 3<>"/dev/tcp/127.0.0.1/$((offset + 143))") 2>/dev/null && break
      sleep 0.02
    done
    now=$((($(date +%s%N) - begin) / 1000000))
    if [ "$round" = 1 ]; then first=$now; elif [ -z "$best" ] || [ "$now" -lt "$best" ]; then best=$now; fi
    sleep 1
    memory=$(awk '/^RssAnon/ {print $2}' "/proc/$pid/status" || true)
    kill "$pid" || true
    wait "$pid" || { echo "FAILED the appliance on $name ended with $?"; cat "$dir/said-$name"; return; }
  done
  printf '   %-22s first start %5d ms   later starts %5d ms   memory of its own %6d KiB   file %9d bytes\n' \
    "$name" "$first" "$best" "$memory" "$(wc -c <"$3")"
}

build() { env CGO_ENABLED=0 "$@" go build -trimpath -ldflags '-s -w' -o "$out" .; }

# can_run GOARCH: whether this machine runs such programs by itself; many systems of 64 bits have no way for those of 32.
can_run() {
  mkdir -p "$dir/can"
  printf 'package main\n\nfunc main() {}\n' >"$dir/can/main.go"
  CGO_ENABLED=0 GOARCH=$1 go build -o "$dir/can/$1" "$dir/can/main.go" && "$dir/can/$1" 2>/dev/null
}

bits32=
if ! can_run 386; then bits32=qemu-i386-static; fi
if [ -z "$bits32" ] || command -v "$bits32" >/dev/null; then
  tests 386 600 "$bits32" GOARCH=386
else
  echo "note: programs of 32 bits do not run here, and qemu-user-static is not here"
fi
if command -v qemu-aarch64-static >/dev/null; then
  tests arm64 600 qemu-aarch64-static GOARCH=arm64
  tests armv6 600 'qemu-arm-static -cpu arm1176' GOARCH=arm GOARM=6
else
  echo "note: qemu-user-static is not here, nothing was run for arm64 and armv6"
fi

out=$dir/appliance-amd64 build GOARCH=amd64
measure amd64 '' "$dir/appliance-amd64"
if [ -z "$bits32" ]; then
  out=$dir/appliance-386 build GOARCH=386
  measure 386 '' "$dir/appliance-386"
fi
if command -v qemu-aarch64-static >/dev/null; then
  out=$dir/appliance-arm64 build GOARCH=arm64
  measure 'arm64 (under qemu)' qemu-aarch64-static "$dir/appliance-arm64"
fi
echo "arm done"
