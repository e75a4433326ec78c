#!/usr/bin/env bash
# The main job on one machine, with the real programs: an environment comes up, runs tasks, loses a
# node the way Auto Scaling takes one, and goes away without a trace. Every step is asserted; the
# last line says how many held. Nothing stays behind, also when a step fails or ^C is pressed.
# shellcheck disable=SC2317 # functions are called through check
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

readonly name=demo
PATH=$PWD/target/debug:$PATH
work=$(mktemp -d)
passed=0 failed=0 completed=''
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
        exit 1
    fi
}
is() { # is WANTED GOT
    [ "$1" = "$2" ] || { printf '     wanted: %s\n     got:    %s\n' "$1" "$2" && false; }
}

leftovers() {
    docker ps --all --quiet --filter "label=fleet-sandbox=$name"
    docker network ls --quiet --filter "label=fleet-sandbox=$name"
    docker volume ls --quiet --filter "label=fleet-sandbox=$name"
    grep --files-with-matches --null-data "^FLEET_SANDBOX_OWNS=$name\$" /proc/[0-9]*/environ 2>/dev/null
    ls -d "/run/fleet-sandbox/$name" 2>/dev/null
}

finish() {
    trap - EXIT INT TERM
    if [ -z "$completed" ]; then
        [ "$failed" -gt 0 ] || { failed=1 && printf '%sFAIL%s interrupted\n' "$red" "$off"; }
        step "What the sandbox wrote last"
        tail -n 40 "/run/fleet-sandbox/$name/log" 2>/dev/null
    fi
    step "Cleaning up"
    run fleet-sandbox down --name "$name"
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
    exit "$((failed > 0))"
}
trap finish EXIT
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

writes() { fleet-sandbox calls --name "$name" --json | jq --raw-output '.[] | select(.caller == "sandbox") | .operation' | grep --extended-regexp --invert-match '^(Describe|Get|List)'; }
tells() { # tells FILE LINE... : the lines stand in the file, in this order
    local file=$1 from=1 at
    shift
    for line in "$@"; do
        at=$(tail -n "+$from" "$file" | grep --max-count 1 --line-number --extended-regexp "$line" | cut -d: -f1)
        [ -n "$at" ] || { echo "     not in its place: $line" && return 1; }
        from=$((from + at))
    done
}

step "An AWS on this machine"
run fleet-sandbox up --name "$name" --port 0 --files target/dist || exit 1
eval "$(fleet-sandbox env --name "$name")"
cd "$work" || exit 1

step "A file that says what is wanted"
subnets=()
for subnet in $FLEET_SANDBOX_SUBNETS; do subnets+=(--subnet "$subnet"); done
run fleet-bootstrap init --name shop --vpc "$FLEET_SANDBOX_VPC" "${subnets[@]}" --environment dev
cat >>fleet.toml <<END

[environments.dev.agent]
source = { url = "$FLEET_SANDBOX_NODE_URL/_sandbox/files/fleet-agent", sha256 = "$(sha256sum "$OLDPWD/target/dist/fleet-agent" | cut -d' ' -f1)" }

[environments.dev.groups.web]
desired = 2

[environments.dev.sidecars.node-logs]
image = "fleet-sandbox/busybox:1"
command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"]
before_tasks = true
memory_mib = 16
END
check "the file is valid" run fleet-bootstrap validate
run fleet-bootstrap plan dev
check "plan finds changes: exit code 2" is 2 $?

step "Up"
check "up brings the environment up and waits for its nodes" run fleet-bootstrap up dev --yes
check "two nodes are ready: in service, in ECS, their agents reporting" is 2 "$(nodes '[.nodes[] | select(.ready)] | length')"
run fleet-bootstrap status dev
run fleet-sandbox run-tasks --name "$name" shop-dev web 4
check "4 tasks of one service run" until_is 60 4 nodes '[.nodes[].tasks] | add'

step "Up again"
fleet-sandbox calls --name "$name" --reset
check "up has nothing to do" run fleet-bootstrap up dev --yes
check "and made no write" is "" "$(writes)"

step "Auto Scaling takes a node"
leaving=$(nodes '.nodes[0].id') staying=$(nodes '.nodes[1].id')
run fleet-sandbox exec --name "$name" "$leaving" -- fleet-agent status
check "TerminateInstanceInAutoScalingGroup is taken" run fleet-sandbox terminate --name "$name" "$leaving" --decrement
check "the node is gone" until_is 90 "$staying" nodes '.nodes[].id'
fleet-sandbox journal --name "$name" "$leaving" | jq --raw-output .MESSAGE >"$work/journal"
printf '%sthe journal of %s%s\n' "$bold" "$leaving" "$off"
cat "$work/journal"
check "its journal tells: notice, DRAINING, tasks gone, sidecars stopped, completed" tells "$work/journal" \
    'notice: Auto Scaling terminates' 'set to DRAINING: 2 tasks' 'tasks gone' 'sidecars? stopped' 'completed fleet-drain'
check "its tasks run on the other node" until_is 60 4 nodes ".nodes[] | select(.id == \"$staying\") | .tasks"

step "Down"
check "down removes everything, with tasks running" run fleet-bootstrap down dev --yes
run fleet-bootstrap plan dev
check "plan would create everything: exit code 2" is 2 $?
check "nothing owned is left" is 0 "$(fleet-bootstrap plan dev --json | jq '[.plan.lines[] | select(.mark != "create" and .mark != "adopted")] | length')"
completed=yes
