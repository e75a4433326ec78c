#!/bin/sh
# Installs fleet-agent on an image that does not carry it. cloud-init runs this once, on a node's
# first boot. Whatever fails leaves ecs.service gated, and says so on the console, where
# `fleet-bootstrap up` reads it.
set -u

source='@SOURCE@'
sha256='@SHA256@'

staged=

fail() {
    [ -z "$staged" ] || rm -f "$staged"
    printf 'fleet-agent: install failed: %s\n' "$1" | tee /dev/console >&2
    exit 1
}

last_line() {
    printf '%s\n' "$1" | tail -n 1
}

@FETCH@

# Beside its place, so that the last step is one rename.
staged=$(mktemp @BINARY@.XXXXXX) || fail 'cannot write @BINARY@'

error=$(fetch 2>&1) || fail "cannot download $source: $(last_line "$error")"

found=$(sha256sum "$staged" | cut -d ' ' -f 1)
[ "$found" = "$sha256" ] ||
    fail "$source has SHA-256 $found, fleet.toml pins $sha256"

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
# An image may carry an older agent, which runs by now: that one ends. What drains the node as it stops is
# never stopped here.
error=$(systemctl restart --no-block fleet-agent.service 2>&1) ||
    fail "systemctl restart: $(last_line "$error")"
error=$(systemctl start --no-block fleet-drain.service 2>&1) ||
    fail "systemctl start: $(last_line "$error")"
