#!/bin/sh
# Mounts the volume at @DEVICE@ as Docker's data root. cloud-init runs this early on every boot,
# before Docker, which waits for the network. A volume with nothing on it gets a file system; one
# that holds anything else is left as it is. Whatever fails keeps Docker from starting, and says so
# on the console, where `fleet-bootstrap up` reads it.
set -u

device='@DEVICE@'
root='@ROOT@'
gate='@GATE@'
label='fleet-docker'

fail() {
    printf 'fleet-agent: docker volume: %s\n' "$1" | tee /dev/console >&2
    exit 1
}

last_line() {
    printf '%s\n' "$1" | tail -n 1
}

# What Docker put onto the root volume instead would be gone from its sight on the next boot.
[ -e "$gate" ] || {
    mkdir -p "${gate%/*}" &&
        printf '[Unit]\nAssertPathIsMountPoint=%s\n' "$root" > "$gate" &&
        systemctl daemon-reload
} || fail "cannot write $gate"

mountpoint -q "$root" && exit 0

# On Nitro instances udev makes this name a link to the disk that carries it (amazon-ec2-utils).
waited=0
until [ -b "$device" ]; do
    [ "$waited" -lt 60 ] || fail "there is no $device after 60 s"
    sleep 1
    waited=$((waited + 1))
done

# Probed, not looked up in a cache. 2 is "nothing there"; mkfs looks again, and overwrites nothing
# unless it is forced to.
blkid -p "$device" > /dev/null 2>&1
case $? in
0) ;;
2)
    error=$(mkfs.xfs -q -L "$label" "$device" 2>&1) ||
        fail "cannot make a file system on $device: $(last_line "$error")"
    ;;
*) fail "cannot tell what is on $device, so it is left as it is" ;;
esac

found=$(blkid -p -s LABEL -o value "$device")
[ "$found" = "$label" ] ||
    fail "$device holds something else (label '$found'), so it is left as it is"

error=$(mkdir -p "$root" && mount -t xfs -o noatime "$device" "$root" 2>&1) ||
    fail "cannot mount $device on $root: $(last_line "$error")"
