#!/bin/sh
# PID 1 of a kernel in user mode, whose root folder is this host's, only to be read.
# Its command line names dir, which has boot.sh, root/, where that makes the machine's
# root folder, and files/, which are laid over it; and disk, if it has one: that has /etc
# and /var, and what they are at the first boot.
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
mount -t proc proc /proc
exec sh -ec "$(sed '/^pivot_root/i\
if [ -n "'"$disk"'" ]; then\
mknod dev/disk b 98 0\
mkdir disk\
mount -t ext4 dev/disk disk\
[ -d disk/etc ] || cp -a etc var disk\
mount --bind disk/etc etc\
mount --bind disk/var var\
fi\
cp -r '"$dir"'/files/. .\
rm dev/kmsg\
mknod dev/kmsg c 1 11\
mknod dev/tty1 c 4 1' "$dir/boot.sh")" boot "$dir/root" /lib/systemd/systemd
