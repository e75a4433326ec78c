#!/bin/sh
# Installs fleet-agent on an image that does not carry it. cloud-init runs this once, on a node's
# first boot. Whatever fails leaves ecs.service gated, and says so on the console, where
# `fleet-bootstrap up` reads it.
set -u

url='@URL@'
sha256='@SHA256@'
protocol='@PROTOCOL@'

staged=

fail() {
    [ -z "$staged" ] || rm -f "$staged"
    printf 'fleet-agent: install failed: %s\n' "$1" | tee /dev/console >&2
    exit 1
}

last_line() {
    printf '%s\n' "$1" | tail -n 1
}

# Beside its place, so that the last step is one rename.
staged=$(mktemp @BINARY@.XXXXXX) || fail 'cannot write @BINARY@'

# The first seconds of a boot may lack name resolution: every error is tried again, but the whole
# stays well within the time a node has to become ready.
error=$(curl --fail --silent --show-error --location --globoff \
    --proto "=$protocol" --proto-redir "=$protocol" \
    --connect-timeout 10 --max-time 120 \
    --retry 5 --retry-all-errors --retry-max-time 180 \
    --output "$staged" "$url" 2>&1) ||
    fail "cannot download $url: $(last_line "$error")"

found=$(sha256sum "$staged" | cut -d ' ' -f 1)
[ "$found" = "$sha256" ] ||
    fail "$url has SHA-256 $found, fleet.toml pins $sha256"

{ chmod 0755 "$staged" && mv -f "$staged" @BINARY@; } ||
    fail 'cannot write @BINARY@'

# The journal's explanations, for `journalctl -x`: a node does its work without them, and a binary
# that hangs must not keep cloud-init from ending.
{
    mkdir -p '@CATALOG_DIRECTORY@' &&
        timeout 10 @BINARY@ catalog > '@CATALOG@' &&
        journalctl --update-catalog
} || printf 'fleet-agent: the journal has no explanations of its messages\n' >&2

error=$(systemctl daemon-reload 2>&1) ||
    fail "systemctl daemon-reload: $(last_line "$error")"
error=$(systemctl enable fleet-agent.service fleet-drain.service 2>&1) ||
    fail "systemctl enable: $(last_line "$error")"
# Not waiting: cloud-init, which runs this, must end before ecs.service can start.
error=$(systemctl start --no-block fleet-agent.service fleet-drain.service 2>&1) ||
    fail "systemctl start: $(last_line "$error")"
