#!/bin/sh
# confined.sh WRITABLE... -- COMMAND: run a command as process 1 of namespaces of its own, for a service manager
# that must not touch this machine: everything is read-only but the named directories and what is private.
set -eu
if [ -z "${CONFINED:-}" ]; then
    hierarchy=/sys/fs/cgroup
    [ -e $hierarchy/cgroup.procs ] || hierarchy=$hierarchy/unified
    group=$hierarchy/xenintro-test-$$
    mkdir "$group"
    trap 'find "$group" -depth -type d -exec rmdir {} +' EXIT
    # This shell stays outside: only an empty group can be removed.
    CONFINED=1 sh -c 'echo 0 > "$0/cgroup.procs" && exec unshare --mount --pid --fork --kill-child --mount-proc \
        --uts --ipc --net --cgroup -- "$@"' "$group" sh "$0" "$@" || code=$?
    exit "${code:-0}"
fi

mount --make-rprivate /
while [ "$1" != -- ]; do
    mount --bind "$1" "$1"
    shift
done
shift
mount --bind /proc/sys /proc/sys
for place in /proc/sys /sys /dev /; do
    mount -o remount,bind,ro "$place"
done
for place in /run /var /dev/shm; do
    mount -t tmpfs -o mode=755 tmpfs "$place"
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# The proof: nothing of the machine can be written.
for place in /tmp /etc /root /dev /usr /proc/sys/kernel/hostname /sys/power; do
    if touch "$place/confined" 2>/dev/null || { [ -f "$place" ] && echo x 2>/dev/null > "$place"; }; then
        echo "confined.sh: $place can be written" >&2
        exit 1
    fi
done
exec "$@"
