#!/bin/bash
# A whole machine of the size of a small Raspberry Pi, emulated: armvm.sh DIR, where DIR holds a release (scripts/release). A
# Cortex-A53 with two cores and 512 MB boots Debian for arm64, the package for it is installed, mail comes in from outside and is
# read; then the program for armv6 starts on the same machine. Prints the figures, a line for each check, "ok NAME" or "FAILED NAME", and
# "armvm done" at the end. It needs root, and Debian's packages for qemu, and for the first time, which makes the tree, some five
# minutes more; so .ci/run does it only if APPLIANCE_TEST_SYSTEMS is set.
set -euo pipefail
cd "$(dirname "$0")/.."
release=$(readlink -f "$1")
work=$(mktemp -d /tmp/appliance-armvm.XXXXXX)
source .ci/trees.sh
machine=
finish() {
  if [ -n "$machine" ]; then kill "$machine" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

skip() {
  note "$*: skip the whole small machine"
  echo "armvm done"
  exit
}
[ "$(id -u)" = 0 ] || skip "only root can make its disk"
need mmdebstrap mmdebstrap || skip "mmdebstrap is not to be had"
need qemu-system-aarch64 qemu-system-arm || skip "qemu-system-arm is not to be had"
need cpio cpio && need mkfs.ext4 e2fsprogs || skip "cpio or mkfs.ext4 is not to be had"

# The tree: the scripts of its packages run under qemu-user; the kernel is unpacked without the hooks that would make its
# initrd, which take half an hour that way.
foreign() {
  need qemu-aarch64-static qemu-user-static && need arch-test arch-test || return 1
  [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || return 1
  arch-test arm64 >/dev/null 2>&1 && return
  printf '%s' ':qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F' \
    >/proc/sys/fs/binfmt_misc/register || return 1
}
root=$trees/arm64
if [ ! -d "$root" ]; then
  foreign || skip "programs for arm64 cannot be run by the kernel (binfmt_misc, qemu-user-static)"
  mkdir -p "$trees"
  rm -rf "$root.new"
  # shellcheck disable=SC2016 # the hook is for the other shell
  mmdebstrap --quiet --arch=arm64 --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,procps,busybox-static \
    --customize-hook='p=$(chroot "$1" apt-cache depends linux-image-arm64 | sed -n "s/.*Depends: \(linux-image-6[^ ]*\).*/\1/p" | head -1) && chroot "$1" sh -c "cd /root && apt-get download $p" && dpkg -x "$1"/root/linux-image*.deb "$1"/kernel && rm "$1"/root/linux-image*.deb' \
    bookworm "$root.new" >"$work/tree.log" 2>&1 || { tail -n 5 "$work/tree.log"; rm -rf "$root.new"; skip "no Debian for arm64 is to be had"; }
  mv "$root.new" "$root"
fi
kernel=$(ls "$root/kernel/lib/modules")

# An initrd that mounts the disk.
mkdir -p "$work/initrd/"{bin,lib,new,proc,sys,dev}
cp "$root/bin/busybox" "$work/initrd/bin/"
for module in virtio_pci virtio_pci_modern_dev virtio_pci_legacy_dev virtio_mmio virtio_blk failover net_failover virtio_net crc16 mbcache jbd2 crc32c_generic libcrc32c ext4; do
  file=$(find "$root/kernel/lib/modules" -name "$module.ko" | head -1)
  if [ -n "$file" ]; then cp "$file" "$work/initrd/lib/"; fi
done
cat >"$work/initrd/init" <<'END'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc p /proc; $b mount -t sysfs s /sys; $b mount -t devtmpfs d /dev
for round in 1 2 3 4; do for module in /lib/*.ko; do $b insmod $module 2>/dev/null; done; done
for round in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; $b sleep 0.3; done
$b mount -t ext4 /dev/vda /new && exec $b switch_root /new /sbin/init
END
chmod +x "$work/initrd/init"
(cd "$work/initrd" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd.gz"

# The disk: the tree, the package, the program for armv6, and what is done with them.
mkdir "$work/root"
(cd "$root" && tar -c --exclude=./kernel .) | tar -x -C "$work/root"
echo armbox >"$work/root/etc/hostname"
cp "$release"/*_arm64.deb "$work/root/root/appliance.deb"
install -m 755 "$release"/appliance-*-linux-armv6 "$work/root/usr/bin/appliance6"
{
  echo '#!/bin/bash'
  declare -f memory greets talk found
  cat <<'END'
say() { echo "TRIAL $*"; }
clock() { echo $(($(date +%s%N) / 1000000)); } # milliseconds
service() { systemctl show -p MainPID --value appliance; }
letter() { talk 143 'a LOGIN maria correct-horse' 'a SELECT INBOX' 'a FETCH 1:* (FLAGS BODY.PEEK[])' 'a LOGOUT' | found 'Subject: from outside'; }
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
say "   up after $(cut -d' ' -f1 /proc/uptime) s: $(uname -m), $(nproc) cores, $(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo) MB"
say "   free before: $(free -m | awk '/^Mem/ {print $7}') MB"
begin=$(clock)
if dpkg -i /root/appliance.deb; then say "ok the package is installed and its service runs ($((($(clock) - begin) / 1000)) s)"; else say "FAILED the package is not installed"; fi
echo correct-horse | appliance user add maria --password-stdin
begin=$(clock)
if systemctl restart appliance; then say "ok the service restarts and answers ($(($(clock) - begin)) ms)"; else say "FAILED the service does not start again"; fi
sleep 5
say "   memory of the service, started: $(memory "$(service)")"
say ready
arrived=
for round in $(seq 60); do
  if letter; then arrived=yes; break; fi
  sleep 2
done
if [ -n "$arrived" ]; then say "ok mail that came from outside is read"; else say "FAILED no mail has come from outside"; fi
say "   memory of the service, after that: $(memory "$(service)")"
appliance status || say "FAILED there is no status"
say "   free with it: $(free -m | awk '/^Mem/ {print $7}') MB"
begin=$(clock)
appliance6 run --data /root/six --listen 127.0.0.1 --port-offset 20000 >/root/six.said 2>&1 &
six=$!
until greets 20143 || [ $(($(clock) - begin)) -gt 120000 ]; do sleep 0.1; done
if greets 20143; then say "ok the program for armv6 answers at its first start ($(($(clock) - begin)) ms)"; else say "FAILED the program for armv6 does not start"; cat /root/six.said; fi
sleep 5
say "   memory of that: $(memory $six)"
say done
END
} >"$work/root/usr/bin/trial"
chmod +x "$work/root/usr/bin/trial"
cat >"$work/root/etc/systemd/system/trial.service" <<'END'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyAMA0
Environment=HOME=/root
ExecStart=/usr/bin/trial
END
mkdir -p "$work/root/etc/systemd/system/graphical.target.wants"
ln -sf ../trial.service "$work/root/etc/systemd/system/graphical.target.wants/trial.service"
truncate -s 2G "$work/disk"
mkfs.ext4 -q -F -d "$work/root" "$work/disk"
rm -rf "$work/root"

port=$((10000 + $$ % 21000)) # and the one behind
begin=$SECONDS
qemu-system-aarch64 -M virt -accel tcg,thread=multi -cpu cortex-a53 -smp 2 -m 512 -display none -serial "file:$work/serial" -monitor none -no-reboot \
  -kernel "$root/kernel/boot/vmlinuz-$kernel" -initrd "$work/initrd.gz" -append "console=ttyAMA0 root=/dev/vda rw quiet systemd.show_status=0" \
  -drive "file=$work/disk,format=raw,if=virtio" -nic "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:$port-:25,hostfwd=tcp:127.0.0.1:$((port + 1))-:143" &
machine=$!
deliver() {
  talk "$port" 'EHLO outside.example.org' 'MAIL FROM:<friend@example.org>' 'RCPT TO:<maria@armbox.local>' DATA "$(printf 'Subject: from outside\r\n\r\nHello.\r\n.')" QUIT
}
delivered=
for _ in $(seq "${APPLIANCE_ARMVM_PATIENCE:-900}"); do
  sleep 1
  if [ -z "$delivered" ] && grep -q 'TRIAL ready' "$work/serial" 2>/dev/null; then
    delivered=yes
    if (deliver) >"$work/delivered" 2>&1; then
      echo "ok mail is taken from outside ($((SECONDS - begin)) s after the power was switched on)"
    else
      echo "FAILED mail is not taken from outside"
      cat "$work/delivered"
    fi
  fi
  if grep -q 'TRIAL done' "$work/serial" 2>/dev/null; then break; fi
  if ! kill -0 "$machine" 2>/dev/null; then break; fi
done
tr -d '\r' <"$work/serial" | sed -n 's/^TRIAL \(ok\|FAILED\|  \)/\1/p'
if ! grep -q 'TRIAL done' "$work/serial" || grep -q 'TRIAL FAILED' "$work/serial"; then
  echo "FAILED the whole small machine; it said last:"
  tail -n 60 "$work/serial"
fi
echo "armvm done"
