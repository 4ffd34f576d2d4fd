#!/bin/sh
# PID 1 of a kernel in user mode, whose root folder is this host's, only to be read.
# Its command line names dir, which has boot.sh, root/, where that makes the machine's
# root folder, and files/, which are laid over it.
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin container=p2pnode
mount -t proc proc /proc
exec sh -ec "$(sed '/^pivot_root/i\
cp -r '"$dir"'/files/. .\
rm dev/kmsg\
mknod dev/kmsg c 1 11\
mknod dev/tty1 c 4 1' "$dir/boot.sh")" boot "$dir/root" /lib/systemd/systemd
