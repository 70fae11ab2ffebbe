#!/bin/bash
# What a release consists of: release.sh DIR builds it twice, in different folders and surroundings, and compares the bytes,
# looks into the packages for Debian, and verifies the signature of the files for Windows, made with a key of its own.
# DIR/summary says the sizes. The second time, everything for linux/amd64 is compiled anew, and for all targets where
# APPLIANCE_TEST_RELEASE is "all"; otherwise what Go has compiled the first time is linked again.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1
first=$dir/first second=$dir/another/folder/second
mkdir -p "$first" "$second" "$dir/source of it" "$dir/key"

version=${APPLIANCE_VERSION:-v0.0.0-test}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH APPLIANCE_VERSION=$version

if command -v osslsigncode >/dev/null && command -v openssl >/dev/null; then
  openssl req -x509 -newkey rsa:3072 -nodes -keyout "$dir/key/key.pem" -out "$dir/key/cert.pem" -days 30 -subj '/CN=A test of Appliance' \
    -addext 'extendedKeyUsage=codeSigning' -addext 'keyUsage=digitalSignature' 2>/dev/null
  export APPLIANCE_SIGN_KEY=$dir/key/key.pem APPLIANCE_SIGN_CERT=$dir/key/cert.pem
else
  echo "note: osslsigncode or openssl is not here, nothing is signed"
fi

scripts/release --out "$first" | tee "$dir/summary"

# Again, from a copy that no git knows, for somebody else far away.
git ls-files -z | tar -c --null -T - | tar -x -C "$dir/source of it"
cold=linux/amd64
if [ "${APPLIANCE_TEST_RELEASE:-}" = all ]; then cold=; fi
(
  cd "$dir/source of it"
  umask 077
  export TZ=Asia/Tokyo LC_ALL=C GOFLAGS=-buildvcs=auto GOARM=7
  GOCACHE=$dir/cache scripts/release --out "$second" $cold
  if [ -n "$cold" ]; then scripts/release --out "$second"; fi
) >"$dir/log2"
rm -rf "$dir/cache"

names=$(cd "$first" && find . -type f | LC_ALL=C sort)
[ "$names" = "$(cd "$second" && find . -type f | LC_ALL=C sort)" ] || { echo "the two releases have different files"; exit 1; }
[ "$(wc -l <<<"$names")" -ge 9 ] || { echo "there are too few files: $names"; exit 1; }
while read -r name; do
  cmp "$first/$name" "$second/$name" || { echo "$name is not the same the second time"; exit 1; }
done <<<"$names"
(cd "$first" && sha256sum --quiet -c SHA256SUMS)
echo "two builds in different folders: the same bytes in all $(wc -l <<<"$names") files" >>"$dir/summary"

# All pages, with what a release is compiled from.
GOFLAGS= go test -overlay "$(scripts/overlay "$dir/overlay")" -tags nethttpomithttp2 -vet=off -run '^TestWeb' . >"$dir/pages" || { cat "$dir/pages"; exit 1; }
echo "the pages of a release: the same as without what it leaves out" >>"$dir/summary"

"$first/appliance-$version-linux-amd64" version | grep -F "appliance $version (" >/dev/null
"$first/appliance-$version-linux-amd64" licenses | cmp - licenses.txt
for exe in "$first"/*.exe; do
  [ -n "${APPLIANCE_SIGN_KEY:-}" ] || continue
  osslsigncode verify -CAfile "$APPLIANCE_SIGN_CERT" -in "$exe" >"$dir/verify" || { cat "$dir/verify"; exit 1; }
  printf X | dd of="$exe" bs=1 seek=100000 conv=notrunc 2>/dev/null
  if osslsigncode verify -CAfile "$APPLIANCE_SIGN_CERT" -in "$exe" >/dev/null 2>&1; then echo "a changed file is still signed"; exit 1; fi
done
if [ -n "${APPLIANCE_SIGN_KEY:-}" ]; then echo "the signatures of the files for Windows are good, and bad once a byte is changed" >>"$dir/summary"; fi

# package FILE ARCHITECTURE: what a package brings, and what it does.
package() {
  local unpacked=$dir/unpacked-$2
  [ "$(dpkg-deb -f "$1" Architecture)" = "$2" ]
  dpkg-deb -R "$1" "$unpacked"
  (cd "$unpacked" && md5sum --quiet -c DEBIAN/md5sums)
  [ "$(cd "$unpacked" && find . -type f | LC_ALL=C sort | tr '\n' ' ')" = "./DEBIAN/control ./DEBIAN/md5sums ./DEBIAN/postinst ./DEBIAN/postrm ./DEBIAN/prerm ./usr/bin/appliance ./usr/share/doc/appliance/copyright " ]
  for script in postinst prerm postrm; do sh -n "$unpacked/DEBIAN/$script"; done
  [ "$(dpkg-deb -c "$1" | awk '{print $2}' | sort -u)" = root/root ]
}
if command -v dpkg-deb >/dev/null; then
  for arch in amd64 arm64 armhf; do package "$(ls "$first"/*_"$arch".deb)" "$arch"; done
  cmp "$dir/unpacked-amd64/usr/bin/appliance" "$first/appliance-$version-linux-amd64"
  # Versions of packages have the order of the versions they are of.
  dpkg --compare-versions "$(dpkg-deb -f "$(ls "$first"/*_amd64.deb)" Version)" lt 0.0.0
fi
echo "release done"
