#!/bin/sh
# Process 1 of the emulated host that scripts/keyed-host boots, in its initramfs.
# The real host's root file system is 9p share "root", which cannot be written;
# "exchange" holds the command to run and takes its exit status. The second
# serial line is the command's output, the first one the kernel's log.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
fail() {
    echo "keyed-host: $*" >/dev/ttyS0
    echo o >/proc/sysrq-trigger
    sleep 60
}

mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
# Sorted by name, which says the order.
for module in /modules/*; do
    insmod "$module" || fail "could not load ${module##*/}"
done

mkdir /real /memory /merged
share=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,$share,cache=loose" root /real || fail "no share 'root'"
mount -t tmpfs -o size=75%,mode=755 tmpfs /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/real,upperdir=/memory/upper,workdir=/memory/work overlay /merged ||
    fail "could not lay memory over the root file system"
mount -t proc proc /merged/proc
mount -t sysfs sysfs /merged/sys
mount -t devtmpfs devtmpfs /merged/dev
mkdir -p /merged/dev/pts /merged/dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /merged/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /merged/dev/shm
mkdir -p /merged/run/keyed-host
mount -t 9p -o "$share" exchange /merged/run/keyed-host || fail "no share 'exchange'"
ip link set lo up
echo keyed-host >/proc/sys/kernel/hostname

# What a terminal does with what is written is not wanted; through cat, so that
# the command sees a pipe.
stty -F /dev/ttyS1 raw
exec 3>/dev/ttyS1
umount /proc /sys
# With the root as the process's own: a process in chroot may make no user namespace.
# shellcheck disable=SC2016 # for the shell there
exec switch_root /merged /bin/bash -c '
    {
        bash /run/keyed-host/command </dev/null 2>&1 3>&-
        echo $? >/run/keyed-host/status
    } | cat >&3
    exec 3>&-
    echo o >/proc/sysrq-trigger
    while :; do sleep 60; done'
