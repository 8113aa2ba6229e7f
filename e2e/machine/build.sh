#!/bin/bash
# Makes what a machine is booted from, out of Debian's packages alone: DIR/initrd (loads the disk's driver and file system)
# and DIR/root (what is put on the disk: busybox, the kernel's network and file system modules, trimtab).
# usage: build.sh DIR TRIMTAB KERNEL_RELEASE
set -euo pipefail
dir=$1 trimtab=$2 release=$3
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
  mkdir -p "$1"/{bin,dev,etc,proc,run,sys,tmp,var/lib/trimtab,mnt}
  cp /bin/busybox "$1/bin/"
}

skeleton "$dir/early"
copy "$dir/early" virtio_pci virtio_blk ext4
install "$here/early" "$dir/early/init"
(cd "$dir/early" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) > "$dir/initrd"

skeleton "$dir/root"
# All of netfilter, so that what the rules need is loaded on demand as on any Debian.
names() { find "$modules/kernel/net/$1" -name '*.ko' -printf '%f\n' | sed 's/\.ko$//'; }
copy "$dir/root" virtio_net overlay bridge veth vxlan virtio_rng $(names netfilter) $(names ipv4/netfilter) $(names ipv6/netfilter)
install "$here/init" "$dir/root/init"
strip -o "$dir/root/bin/trimtab" "$trimtab" && chmod 755 "$dir/root/bin/trimtab"
