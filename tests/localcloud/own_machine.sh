#!/bin/sh
# Runs a command as if on a machine of its own: own network (no way out), processes, mounts and control groups; the
# files are this machine's, but what belongs to a running cluster is hidden. Needs root.
# usage: own_machine.sh COMMAND...
set -e
name=shipmate-own-machine-$$

if [ -z "$OWN_MACHINE" ]; then
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ -f "$hierarchy/cgroup.procs" ] && [ ! -L "$hierarchy" ] || continue
        [ "$hierarchy" = /sys/fs/cgroup ] || [ ! -f /sys/fs/cgroup/cgroup.controllers ] || continue
        mkdir "$hierarchy/$name"
        if [ -f "$hierarchy/cpuset.cpus" ]; then # version 1: empty in a new group
            cat "$hierarchy/cpuset.cpus" >"$hierarchy/$name/cpuset.cpus"
            cat "$hierarchy/cpuset.mems" >"$hierarchy/$name/cpuset.mems"
        fi
        sh -c 'echo $PPID >"$1/cgroup.procs"' - "$hierarchy/$name"
        groups="$groups $hierarchy"
    done
    code=0
    OWN_MACHINE=yes unshare --net --mount --pid --fork --kill-child --cgroup --mount-proc --propagation private \
        sh "$0" "$@" || code=$?
    for hierarchy in $groups; do
        sh -c 'echo $PPID >"$1/cgroup.procs"' - "$hierarchy"
        find "$hierarchy/$name" -depth -type d -exec rmdir {} +
    done
    exit $code
fi

ip link set lo up
awk '$3 ~ /^cgroup/ { print $2, $3 }' /proc/mounts | while read -r point kind; do
    umount --lazy "$point"
    case $kind:${point##*/} in
    cgroup2:*) mount -t cgroup2 none "$point" ;;
    cgroup:systemd) mount -t cgroup -o none,name=systemd none "$point" ;;
    cgroup:*) mount -t cgroup -o "${point##*/}" none "$point" ;;
    esac
done
of_a_cluster() { awk '$2 ~ "^/run/|/shipmate/cluster/" { print $2 }' /proc/mounts | tac; }
of_a_cluster | xargs --no-run-if-empty umount --lazy || true # what a pod's end removes meanwhile is unmounted here too
left=$(of_a_cluster)
[ -z "$left" ] || { echo "still mounted: $left" >&2; exit 1; }
for folder in /run /var/lib/cni /var/lib/kubelet /var/log/containers /usr/libexec/kubernetes; do
    mkdir -p "$folder"
    mount -t tmpfs none "$folder"
done
"$@" # as a child: this shell reaps what outlives its parent
