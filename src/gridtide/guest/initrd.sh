#!/bin/busybox sh
# First program of a machine: loads the few modules, mounts the disk, hands over to machine.py. Anything that a machine
# does here it does before Python runs, so there is little: each process costs a boot 10 to 20 ms under emulation.
b=/bin/busybox
stop() { $b echo "gridtide: $1; powering off" > /dev/console; $b poweroff -f; }
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
read -r began _ < /proc/uptime
while read -r module; do $b insmod "/$module" || $b echo "gridtide: $module was not loaded"; done < /lib/order
waited=0
while [ ! -b /dev/vda ]; do
    [ $waited -lt 1000 ] || stop "there is no disk (/dev/vda)"
    $b usleep 10000
    waited=$((waited + 1))
done
$b mount -t ext4 -o rw,noatime /dev/vda /newroot || stop "the disk cannot be mounted"
$b mount --move /proc /newroot/proc
$b mount --move /dev /newroot/dev
[ -e /newroot/usr/lib/gridtide/machine.py ] || exec $b switch_root /newroot /sbin/init
exec $b switch_root /newroot /usr/bin/python3 -I -S -E -B /usr/lib/gridtide/machine.py "$began"
