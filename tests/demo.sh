#!/usr/bin/env bash
# The main job on one machine, with the real programs: an environment comes up, runs tasks, loses a
# node the way Auto Scaling takes one, and goes away without a trace. Every step is asserted; the
# last line says how many held. Nothing stays behind, also when a step fails or ^C is pressed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

readonly name=demo
PATH=$PWD/target/debug:$PATH
work=$(mktemp -d)
passed=0 failed=0 follower=
if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' off=$'\e[0m'; else bold='' green='' red='' off=''; fi

step() { printf '\n%s== %s%s\n' "$bold" "$1" "$off"; }
run() {
    printf '%s$ %s%s\n' "$bold" "$*" "$off"
    "$@"
}
check() { # check TEXT COMMAND...
    local text=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        printf '%sok%s   %s\n' "$green" "$off" "$text"
    else
        failed=$((failed + 1))
        printf '%sFAIL%s %s\n' "$red" "$off" "$text"
        finish
    fi
}
is() { # is WANTED GOT
    [ "$1" = "$2" ] || { printf '     wanted: %s\n     got:    %s\n' "$1" "$2" && false; }
}

leftovers() {
    docker ps --all --quiet --filter "label=fleet-sandbox=$name"
    docker network ls --quiet --filter "label=fleet-sandbox=$name"
    docker volume ls --quiet --filter "label=fleet-sandbox=$name"
    pgrep --full "fleet-sandbox serve --name $name"
    ls -d "/run/fleet-sandbox/$name" 2>/dev/null
}

finish() {
    trap - EXIT INT TERM
    [ -z "$follower" ] || kill "$follower" 2>/dev/null
    if [ "$failed" -gt 0 ]; then
        step "What the sandbox wrote last"
        tail -n 40 "/run/fleet-sandbox/$name/log" 2>/dev/null
    fi
    fleet-sandbox down --name "$name" >"$work/down" 2>&1 || cat "$work/down"
    local left
    left=$(leftovers)
    if [ -z "$left" ]; then
        passed=$((passed + 1))
        printf '%sok%s   nothing is left behind: no container, network, volume or process\n' "$green" "$off"
    else
        failed=$((failed + 1))
        printf '%sFAIL%s left behind: %s\n' "$red" "$off" "$left"
    fi
    rm -rf "$work"
    printf '\ndemo: %d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" -eq 0 ] && [ "$1" = completed ]
    exit
}
trap 'failed=$((failed + 1)); finish interrupted' EXIT
trap 'exit 130' INT TERM

nodes() { fleet-bootstrap status dev --json | jq --raw-output "$1"; }
until_is() { # until_is SECONDS WANTED COMMAND... : event loops converge, so look again until they have
    local deadline=$((SECONDS + $1)) wanted=$2 got
    shift 2
    until got=$("$@") && [ "$got" = "$wanted" ]; do
        [ "$SECONDS" -lt "$deadline" ] || { is "$wanted" "$got"; return; }
        sleep 0.5
    done
}
