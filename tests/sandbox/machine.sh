#!/bin/sh
# The first program in a machine's fresh namespaces; becomes its PID 1.
# usage: machine.sh STATE SOCKETS HOSTNAME RESOLVER
set -eu
state=$1 sockets=$2 resolver=$4
echo "$3" >/proc/sys/kernel/hostname

# A network namespace sees its own links only through a fresh sysfs; the control groups are bound back into it.
mkdir -p "$state/keep"
mount --rbind /sys/fs/cgroup "$state/keep"
mount -t sysfs sysfs /sys
mount --rbind "$state/keep" /sys/fs/cgroup
umount -l "$state/keep"

# An own /run keeps the sockets of another engine or containerd on this host out of reach.
mount --bind "$sockets" "$state/keep"
resolv=$(readlink -m /etc/resolv.conf)
mount -t tmpfs -o mode=755 tmpfs /run
case $sockets in /run/*) mkdir -p "$sockets" && mount --bind "$state/keep" "$sockets" ;; esac
umount "$state/keep"

# Names outside are answered "no such name" at once: an engine that cannot reach a registry then uses its local image
# without waiting for time-outs.
echo "nameserver $resolver" >"$state/resolv.conf"
case $resolv in /run/*) mkdir -p "$(dirname "$resolv")" && : >"$resolv" ;; esac
mount --bind "$state/resolv.conf" "$resolv"

# Engines write a key into /etc/docker and make /opt/containerd; not on this host.
for dir in /etc/docker /opt; do
    [ ! -d "$dir" ] || mount -t tmpfs -o mode=755 tmpfs "$dir"
done

ip link set lo up
: >"$state/ready"
exec perl "$(dirname "$0")/nxdomain.pl" "$resolver"
