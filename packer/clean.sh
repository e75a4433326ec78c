#!/bin/sh
# On the builder, as root, at the very end: takes away what is this machine's own, so that no two nodes share it and nobody
# whom the image is shared with reads it. What Amazon's image comes with stays.
set -eu

stop() {
    for unit in "$@"; do
        if systemctl cat "$unit" >/dev/null 2>&1; then
            systemctl stop "$unit"
        fi
    done
}

# Whoever would write it again. The gate is in place by now: ecs.service does not come back by itself.
stop ecs.service
docker container prune --force >/dev/null
stop docker.socket docker.service amazon-ssm-agent.service systemd-random-seed.service

# ECS: a checkpoint ties its agent to a cluster, and whoever has it registers as this container instance.
rm -rf /var/lib/ecs/data/*
: >/etc/ecs/ecs.config
# fleet-agent's settings and what it remembers.
rm -rf /etc/fleet/agent.toml /var/lib/fleet-agent
# Ids of Docker and of Systems Manager's agent.
rm -rf /etc/docker/key.json /var/lib/docker/engine-id /var/lib/amazon/ssm/*

# cloud-init takes the next boot for the first one. It writes network and host name anew, and host keys if there are none.
cloud-init clean
rm -rf /var/lib/cloud/*
rm -f /etc/ssh/ssh_host_*
# Empty and there: systemd then draws a new one at each machine's first boot.
: >/etc/machine-id
[ ! -f /var/lib/dbus/machine-id ] || [ -L /var/lib/dbus/machine-id ] || rm /var/lib/dbus/machine-id
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret

# Who may log in, and what was typed.
for home in /root /home/*; do
    rm -rf "$home"/.ssh "$home"/.*history "$home"/.lesshst "$home"/.viminfo "$home"/.docker
done

# Logs stay as files, with their owners: some programs make none themselves. The journal goes to memory until the next boot.
journalctl --relinquish-var
rm -rf /var/log/journal/*
# Some of them end, or are rotated away, meanwhile.
find /var/log -xdev -ignore_readdir_race -type f -exec truncate --no-create --size 0 {} +

rm -rf /var/cache/dnf/* /var/lib/dhclient/*
find /tmp /var/tmp -xdev -ignore_readdir_race -mindepth 1 -delete
sync
