# Process 1 of a machine of the process cloud that has an image; run by the image's BusyBox, in the machine's directory and
# in name spaces of its own: process.sh IMAGE-TREE WORKER COMMAND...  docs/explanation/process-cloud.md tells the whole story.
# A shell, and not a Python: it is up in milliseconds, and two hundred of them are as well.
#
# In the environment, for a machine with a network of its own: GRIDTIDE_BRIDGE (its name), GRIDTIDE_GATEWAY,
# GRIDTIDE_ADDRESSES (lines "LINK ADDRESS/PREFIX", to be tried in turn), GRIDTIDE_IP (the program; BusyBox has a lesser one).
set -eu
busybox=$1/usr/bin/busybox worker=$2

if [ -n "${GRIDTIDE_BRIDGE:-}" ] && [ -z "${GRIDTIDE_OWN_NETWORK:-}" ]; then
    exec 9</proc/self/ns/net # the host's
    GRIDTIDE_OWN_NETWORK=yes exec unshare --net "$busybox" sh "$0" "$@"
fi
shift 2

say() { echo "gridtide: $*" >&2; }

# The name of the host's end says which address is taken, and the kernel lets no two links have one name: whoever makes it
# has the address, without a word between controllers. It goes with the name space.
join_bridge() {
    exec 8</proc/self/ns/net
    echo "$GRIDTIDE_ADDRESSES" | {
        while read -r link address; do
            if "$busybox" nsenter --net=/proc/self/fd/9 "$GRIDTIDE_IP" link add "$link" master "$GRIDTIDE_BRIDGE" up \
                type veth peer name eth0 netns /proc/self/fd/8 2>network.error; then
                printf '%s\n' "link set lo up" "address add $address dev eth0" "link set eth0 up" \
                    "route add default via $GRIDTIDE_GATEWAY" | "$GRIDTIDE_IP" -batch - || exit 1
                echo "${address%/*} $worker" >>upper/etc/hosts
                exit 0
            fi
        done
        say "no address is free on $GRIDTIDE_BRIDGE, or: $("$busybox" cat network.error)"
        exit 1
    }
    exec 8<&- 9<&-
}

"$busybox" hostname "$worker"
if [ -n "${GRIDTIDE_BRIDGE:-}" ]; then
    join_bridge
else
    echo "127.0.1.1 $worker" >>upper/etc/hosts
fi
# "volatile": nothing is ever read back after a crash of the host, so nothing needs to be written out in a hurry.
"$busybox" mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,volatile root
cd root
"$busybox" mount -t proc -o nosuid,nodev,noexec proc proc
"$busybox" mount -o bind proc/sys proc/sys
"$busybox" mount -o remount,bind,ro proc/sys # the host's settings are not a machine's to change
"$busybox" mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
"$busybox" mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs run
"$busybox" mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
"$busybox" mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
"$busybox" pivot_root . mnt
busybox=/usr/bin/busybox
umask 022
cd /var/lib/gridtide
"$busybox" umount -l /mnt
unset GRIDTIDE_IP GRIDTIDE_BRIDGE GRIDTIDE_OWN_NETWORK GRIDTIDE_ADDRESSES GRIDTIDE_GATEWAY

# Processes whose parent has ended are this one's children: the shell buries them while it waits. One that was told to end
# tells the agent, and ends with it; one whose agent was killed starts it again, which finds its running jobs.
child='' ending='' pause=1
trap 'ending=yes; [ -z "$child" ] || kill -TERM "$child"' TERM
while :; do
    "$@" &
    child=$! status=0
    wait "$child" || status=$?
    while kill -0 "$child" 2>/dev/null; do
        status=0
        wait "$child" || status=$?
    done
    child=''
    case "$ending$status" in
    yes* | 0 | 1 | 2 | 126 | 127) exit "$status" ;; # told to, it left by itself, or there is nothing to be started
    esac
    say "the agent ended with status $status; it is started again"
    "$busybox" sleep "$pause"
    pause=$((pause < 16 ? pause * 2 : 30))
done
