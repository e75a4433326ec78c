#!/bin/bash
# Makes a bare Debian 12 fit for the sandbox: packages, a Python venv with moto, a Docker daemon,
# and the node image. Does only what is missing, so that it is quick when nothing is.
#
# What it starts and leaves: dockerd, if none answers. Everything else lies in target/.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/venv
moto='moto[server]==5.2.5'

# What a program needs it by, and the package it is in.
needed=(
    cc:build-essential
    dockerd:docker.io
    docker:docker.io
    iptables:iptables
    mmdebstrap:mmdebstrap
    busybox:busybox-static
    jq:jq
    curl:curl
    file:file
    shellcheck:shellcheck
    groff:groff-base
    packer:packer
    ip:iproute2
    pgrep:procps
)
dockerd_wait_seconds=60

main() {
    require_root
    install_packages
    install_moto
    allow_watches
    start_dockerd
    build_image
}

# Each node is a machine with systemd, journald and dockerd in it, of which each watches files; the
# kernel's default is meant for one machine (systemd: "Failed to allocate manager object").
allow_watches() {
    local limit=/proc/sys/fs/inotify/max_user_instances wanted=4096
    [ "$(cat "$limit")" -lt "$wanted" ] || return 0
    say "raising fs.inotify.max_user_instances to $wanted until the next boot"
    echo "$wanted" >"$limit"
}

say() {
    echo "setup: $*" >&2
}

require_root() {
    if [ "$(id -u)" != 0 ]; then
        say "run as root: the sandbox boots machines with Docker and enters network namespaces"
        exit 1
    fi
}

install_packages() {
    local missing=() entry
    for entry in "${needed[@]}"; do
        command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
    done
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0

    say "installing ${missing[*]}"
    apt-get update -qq -o DPkg::Lock::Timeout=300
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${missing[@]}" >/dev/null
}

install_moto() {
    [ ! -e "$venv/complete-$moto" ] || return 0
    say "installing $moto in $venv (half a minute)"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$moto"
    # Only a venv that was finished carries the mark.
    touch "$venv/complete-$moto"
}

start_dockerd() {
    ! answers || return 0
    if [ -d /run/systemd/system ]; then
        say "starting docker.service"
        systemctl start docker.service
        return 0
    fi
    local log=$target/dockerd.log
    mkdir -p "$target"
    say "starting dockerd, log in $log"
    setsid dockerd >"$log" 2>&1 </dev/null &
    local dockerd=$!
    for _ in $(seq $((dockerd_wait_seconds * 5))); do
        ! answers || return 0
        if ! kill -0 "$dockerd" 2>/dev/null; then
            say "dockerd ended:"
            tail -n 5 "$log" >&2
            exit 1
        fi
        sleep 0.2
    done
    say "dockerd does not answer after $dockerd_wait_seconds s, see $log"
    exit 1
}

answers() {
    docker info >/dev/null 2>&1
}

build_image() {
    local image
    image=$("$root/tests/sandbox/image/build" --tag)
    if docker image inspect "$image" fleet-sandbox/busybox:1 >/dev/null 2>&1; then
        return 0
    fi
    say "building $image (about a minute)"
    "$root/tests/sandbox/image/build" >/dev/null
}

main "$@"
