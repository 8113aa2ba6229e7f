#!/bin/bash
# Makes what a machine is booted from, out of Debian's packages alone: DIR/initrd (loads the disk's driver and file system)
# and DIR/root (what is put on the disk: busybox, the kernel's modules, the script that is its PURPOSE, programs, and for
# the purpose `systemd` that and the system bus).
# usage: build.sh DIR KERNEL_RELEASE PURPOSE PROGRAM=PLACE...
set -euo pipefail
dir=$1 release=$2 purpose=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
modules=/lib/modules/$release

# copy TREE MODULE...: the modules and all that they need, with the tables that modprobe reads.
copy() {
  local tree=$1; shift
  mkdir -p "$tree$modules"
  for module in "$@"; do modprobe -S "$release" -d / --show-depends "$module"; done |
    awk '$1 == "insmod" {print $2}' | sort -u | while read -r file; do install -D "$file" "$tree$file"; done
  cp "$modules"/modules.{order,builtin,builtin.modinfo} "$tree$modules/"
  depmod -b "$tree" "$release"
}

skeleton() {
  mkdir -p "$1"/{dev,etc,proc,run,sys,tmp,var/tmp,var/lib/trimtab,mnt,usr/bin,usr/sbin,usr/lib,usr/lib64}
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$1/$name"; done
  cp /bin/busybox "$1/bin/"
}

# program FILE PLACE: a program, with the libraries that it is linked with.
program() {
  mkdir -p "$(dirname "$dir/root$2")"
  strip -o "$dir/root$2" "$1" && chmod 755 "$dir/root$2"
  { ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true; } |
    while read -r library; do install -D "$library" "$dir/root$library"; done
}

# packages NAME...: what is in packages, and in those that they need to run.
packages() {
  mkdir "$dir/packages" && touch "$dir/none"
  (cd "$dir/packages" && apt-get -s -o Dir::State::status="$dir/none" install --no-install-recommends "$@" |
    awk '$1 == "Inst" {print $2}' | grep -vE '^(perl|lib(perl|number|text|file)|debconf|adduser|dpkg|usrmerge)' |
    xargs apt-get -q -o APT::Sandbox::User=root download >&2)
  for package in "$dir"/packages/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$dir/root"
  done
}

skeleton "$dir/early"
copy "$dir/early" virtio_pci virtio_blk ext4
install "$here/early" "$dir/early/init"
(cd "$dir/early" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) > "$dir/initrd"

skeleton "$dir/root"
[ "$purpose" != systemd ] || packages systemd dbus
# All of netfilter, so that what the rules need is loaded on demand as on any Debian.
names() { find "$modules/kernel/net/$1" -name '*.ko' -printf '%f\n' | sed 's/\.ko$//'; }
copy "$dir/root" virtio_net virtiofs overlay bridge veth dummy vxlan loop bfq virtio_rng $(names netfilter) $(names ipv4/netfilter) $(names ipv6/netfilter)
install "$here/init" "$dir/root/init"
install -d "$dir/root/purpose"
install "$here/cluster" "$here/runtime" "$here/systemd" "$here/guest" "$dir/root/purpose"
for pair in "$@"; do program "${pair%%=*}" "${pair#*=}"; done
