#!/bin/bash
# A whole machine of the size of a small Raspberry Pi, emulated: armvm.sh DIR, where DIR holds a release (scripts/release). A
# Cortex-A53 with two cores and 512 MB boots Debian for arm64, the package for it is installed, and the service is reached from
# outside; then the program for armv6 starts on the same machine. Prints the figures. It needs root, mmdebstrap, qemu-system-arm,
# qemu-user-static and arch-test, and some five minutes for the first time, which makes the tree; so .ci/run does it only if
# APPLIANCE_TEST_SYSTEMS is set.
set -euo pipefail
cd "$(dirname "$0")/.."
release=$1
trees=${APPLIANCE_CI_CACHE:-/var/cache/appliance-ci}
work=$(mktemp -d /tmp/appliance-armvm.XXXXXX)
machine=
finish() {
  if [ -n "$machine" ]; then kill "$machine" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

# The tree: the scripts of its packages run under qemu-user; the kernel is unpacked without the hooks that would make its
# initrd, which take half an hour that way.
root=$trees/arm64
if [ ! -d "$root" ]; then
  [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
  if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    printf '%s' ':qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F' \
      >/proc/sys/fs/binfmt_misc/register
  fi
  mkdir -p "$trees"
  rm -rf "$root.new"
  # shellcheck disable=SC2016 # the hook is for the other shell
  mmdebstrap --quiet --arch=arm64 --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,procps,busybox-static \
    --customize-hook='p=$(chroot "$1" apt-cache depends linux-image-arm64 | sed -n "s/.*Depends: \(linux-image-6[^ ]*\).*/\1/p" | head -1) && chroot "$1" sh -c "cd /root && apt-get download $p" && dpkg -x "$1"/root/linux-image*.deb "$1"/kernel && rm "$1"/root/linux-image*.deb' \
    bookworm "$root.new"
  mv "$root.new" "$root"
fi
kernel=$(ls "$root/kernel/lib/modules")

# An initrd that mounts the disk.
mkdir -p "$work/initrd/"{bin,lib,new,proc,sys,dev}
cp "$root/bin/busybox" "$work/initrd/bin/"
for module in virtio_pci virtio_pci_modern_dev virtio_pci_legacy_dev virtio_mmio virtio_blk failover net_failover virtio_net crc16 mbcache jbd2 crc32c_generic libcrc32c ext4; do
  found=$(find "$root/kernel/lib/modules" -name "$module.ko" | head -1)
  if [ -n "$found" ]; then cp "$found" "$work/initrd/lib/"; fi
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
cp -a "$root" "$work/root"
cp "$release"/*_arm64.deb "$work/root/root/appliance.deb"
install -m 755 "$release"/appliance-*-linux-armv6 "$work/root/usr/bin/appliance6"
cat >"$work/root/usr/bin/trial" <<'END'
#!/bin/sh
say() { echo "TRIAL $*"; }
own() { tr -s '\t ' '  ' <"/proc/$1/status" | grep -E '^(VmHWM|RssAnon|RssFile)' | tr '\n' ' '; }
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
say "up after $(cut -d' ' -f1 /proc/uptime) s, $(uname -m), $(grep MemTotal /proc/meminfo)"
begin=$(cut -d' ' -f1 /proc/uptime)
dpkg -i /root/appliance.deb && say "the package is installed and the service answers, $begin s to $(cut -d' ' -f1 /proc/uptime) s"
/usr/bin/appliance version
appliance status
say "memory of arm64: $(own "$(systemctl show -p MainPID --value appliance)")"
systemctl restart appliance && say "restarted at $(cut -d' ' -f1 /proc/uptime) s"
begin=$(date +%s%N)
appliance6 run --data /root/six --listen 127.0.0.1 --port-offset 20000 >/root/six.said 2>&1 &
six=$!
until (exec 3<>/dev/tcp/127.0.0.1/20143) 2>/dev/null || [ $((($(date +%s%N) - begin) / 1000000000)) -gt 60 ]; do sleep 0.1; done
say "armv6 answers after $((($(date +%s%N) - begin) / 1000000)) ms, memory: $(own $six)"
free -m
say done
END
sed -i '1s|/bin/sh|/bin/bash|' "$work/root/usr/bin/trial"
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

port=$((10000 + $$ % 21000))
qemu-system-aarch64 -M virt -accel tcg,thread=multi -cpu cortex-a53 -smp 2 -m 512 -display none -serial "file:$work/serial" -monitor none -no-reboot \
  -kernel "$root/kernel/boot/vmlinuz-$kernel" -initrd "$work/initrd.gz" -append "console=ttyAMA0 root=/dev/vda rw quiet systemd.show_status=0" \
  -drive "file=$work/disk,format=raw,if=virtio" -nic "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:$port-:143" &
machine=$!
reached=
for _ in $(seq "${APPLIANCE_ARMVM_PATIENCE:-600}"); do
  sleep 1
  if [ -z "$reached" ]; then
    reached=$(timeout 3 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port; head -1 <&3" 2>/dev/null || true)
    [ -z "$reached" ] || echo "reached from outside after $SECONDS s: $reached"
  fi
  if grep -q 'TRIAL done' "$work/serial" 2>/dev/null; then break; fi
done
tr -d '\r' <"$work/serial"
grep -q 'TRIAL done' "$work/serial" && [ -n "$reached" ]
grep -q 'TRIAL the package is installed' "$work/serial"
echo "armvm done"
