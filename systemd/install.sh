#!/bin/sh
# Puts fleet-agent on a machine: the gate on ecs.service, units, the journal's catalogue and the binary. It lies in the
# unpacked release, beside bin/ and systemd/. Run as root on an image that is being built, or on a node that
# runs: there it is an upgrade, which restarts the agent and touches neither tasks nor sidecars nor ecs.service.
#
#   install.sh [--root DIR]    DIR: the root of an image that is not running; nothing is started
set -eu

release=$(cd "$(dirname "$0")" && pwd)
root=

fail() {
    printf 'fleet-agent: install failed: %s\n' "$1" >&2
    exit 1
}

case "$#:${1:-}" in
0:) ;;
2:--root) root=${2%/} ;;
*) fail 'usage: install.sh [--root DIR]' ;;
esac
[ "$(id -u)" = 0 ] || fail 'run it as root'

binary=$root/usr/bin/fleet-agent
settings=$root/etc/fleet/agent.toml
units=$root/etc/systemd/system
gate=$units/ecs.service.d/10-fleet.conf
catalog=$root/usr/lib/systemd/catalog/fleet.catalog

# Beside its place, so that the last step is one rename: a binary that runs is never written to.
staged=$(mktemp "$binary.XXXXXX") || fail "cannot write $binary"
trap 'rm -f "$staged"' EXIT
install -m 0755 "$release/bin/fleet-agent" "$staged" || fail "cannot write $staged"

# A node keeps the agent that it has if the other one could not go on from what is there. What an image has saved
# is another machine's.
node=
[ -n "$root" ] || node=--node
if [ -e "$settings" ]; then
    "$staged" check $node "$settings" >/dev/null || fail 'this version cannot take over here; nothing was changed'
fi

# The gate before anything that could fail. All of it can be done again.
put() {
    install -D -m 0644 "$release/systemd/$1" "$2" || fail "cannot write $2; run this again"
}
put 10-fleet.conf "$gate"
put fleet-agent.service "$units/fleet-agent.service"
put fleet-drain.service "$units/fleet-drain.service"
put fleet.catalog "$catalog"
# A power cut leaves the old one or the new one.
{ sync "$staged" && mv -f "$staged" "$binary" && sync "$(dirname "$binary")"; } || fail "cannot write $binary; run this again"

if [ -n "$root" ]; then
    systemctl --quiet --root "$root" enable fleet-agent.service fleet-drain.service
    journalctl --root "$root" --update-catalog
    exit 0
fi
systemctl daemon-reload
systemctl --quiet enable fleet-agent.service fleet-drain.service
journalctl --update-catalog
# An image that is being built has no settings yet: its nodes get theirs from user data.
[ -e "$settings" ] || exit 0
# Never a restart of fleet-drain.service, whose end may be a drain.
systemctl start --no-block fleet-drain.service
systemctl restart fleet-agent.service
