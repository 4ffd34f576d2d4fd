# boot.sh DIR INIT: a root folder at DIR, then INIT in it.
mount --make-rprivate /
mount -t tmpfs -o mode=755 root "$1"
cd "$1"
mkdir -p usr etc/systemd/system var/lib var/log run tmp proc sys dev root old
mount --bind /usr usr
mount -o remount,bind,ro usr
for dir in bin sbin lib lib64; do
  if [ -L /$dir ]; then
    cp -P /$dir $dir
  elif [ -d /$dir ]; then
    mkdir $dir
    mount --bind -o ro /$dir $dir
  fi
done
# Targets do nothing by themselves, and two services end the machine; others, generators
# and presets of this host are none of its business.
cp -P lib/systemd/system/*.target lib/systemd/system/systemd-poweroff.service lib/systemd/system/systemd-reboot.service tmp
for dir in lib/systemd/system lib/systemd/system-generators lib/systemd/system-environment-generators lib/systemd/system-preset usr/local/bin; do
  [ ! -d $dir ] || mount -t tmpfs -o mode=755 none $dir
done
mv tmp/* lib/systemd/system
echo root:x:0:0:root:/root:/bin/sh >etc/passwd
echo root:x:0: >etc/group
echo 0123456789abcdef0123456789abcdef >etc/machine-id
echo machine >etc/hostname
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom; do
  touch dev/$node
  mount --bind /dev/$node dev/$node
done
touch dev/kmsg # what systemd says
mkdir dev/shm
pivot_root . old
umount -l /old
exec "$2" --system --unit=multi-user.target --log-target=kmsg --show-status=no
