#!/usr/bin/env bash
# A swarm of several machines on one: each node has namespaces and an engine of its own, joined by a switch that is
# one more set of namespaces. Nodes have the images that the sandbox's engine had when they came up.
#
# usage: nodes.sh up M W [OPTION…]   M managers and W workers; options go to `docker swarm init`
#        nodes.sh down               end all of it
#        nodes.sh status             one line a node
#        nodes.sh env N              print the variables that point a docker client at node N
#        nodes.sh docker N ARG…      docker, on node N
#        nodes.sh exec N CMD…        run a command inside node N
# faults: killd N   kill -9 its engine; its containers go on       stopd N   ask its engine to end
#         start N   start its engine again
#         crash N   power cut                                      boot N    power again
#         part N    pull its network cable                         heal N    plug it in
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ $# -gt 0 ] || die "usage: nodes.sh up|down|status|env|docker|exec|killd|stopd|start|crash|boot|part|heal"
as_root "$@"
open_state

nodes=$sandbox/nodes
switch=$nodes/switch
link=skep${tag}s
export DOCKER_CONFIG=$sandbox/docker-config
unset DOCKER_CONTEXT

# The upper half of this checkout's addresses: the host has the first, node N the one N after it.
outside=$net.$((last + 33))
address() { echo "$net.$((last + 33 + $1))"; }
socket() { echo "$sockets/n$1.sock"; }
on() { docker -H "unix://$(socket "$1")" "${@:2}"; }

# The nodes that there are, by number.
numbers() {
    local dir
    for dir in "$nodes"/n[0-9]*; do [ ! -d "$dir" ] || echo "${dir##*/n}"; done
}

exists() { [ -d "$nodes/n$1" ] || die "there is no node $1"; }

switch_up() {
    local pid
    unused "$outside"
    machine_up "$switch" switch "$outside"
    pid=$(machine_pid "$switch")
    inside "$switch" ip link add br0 type bridge
    inside "$switch" ip link set br0 up
    ip link add "$link" type veth peer name host netns "$pid"
    inside "$switch" ip link set host master br0 up
    ip addr add "$outside/27" dev "$link"
    ip link set "$link" up
}

# machine N: its namespaces and its cable.
machine() {
    local state=$nodes/n$1
    machine_up "$state" "n$1" "$(address "$1")"
    # The old cable's end goes with the namespaces that died; perhaps it is still there.
    inside "$switch" ip link del "port$1" 2>/dev/null || true
    ip link add eth0 netns "$(machine_pid "$state")" type veth peer name "port$1" netns "$(machine_pid "$switch")"
    inside "$switch" ip link set "port$1" master br0 up
    inside "$state" ip addr add "$(address "$1")/27" dev eth0
    inside "$state" ip link set eth0 up
}

# engine N: its engine.
engine() {
    dockerd_up "$nodes/n$1" "$(socket "$1")" "$(address "$1")"
}

# node N: from nothing to an engine that answers.
node() {
    mkdir -p "$nodes/n$1"
    : >"$nodes/n$1/dockerd.log"
    copy_images "$sandbox/engine/data" "$nodes/n$1/data"
    machine "$1"
    engine "$1"
}

up() {
    local managers=$1 workers=$2 i token job jobs=()
    shift 2
    ((managers >= 1 && managers + workers <= 25)) || die "from 1 manager to 25 nodes"
    lock_state
    [ -z "$(numbers)" ] || die "there are nodes already; first: nodes.sh down"
    # No image may change while it is copied.
    exec 8>"$sandbox/images.lock"
    flock 8
    switch_up
    for ((i = 1; i <= managers + workers; i++)); do
        node "$i" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || die "a node did not come up"; done
    exec 8>&-
    on 1 swarm init --advertise-addr "$(address 1)" --listen-addr "$(address 1)" "$@" >/dev/null
    for ((i = 2; i <= managers + workers; i++)); do
        token=$(on 1 swarm join-token -q "$([ "$i" -le "$managers" ] && echo manager || echo worker)")
        on "$i" swarm join --advertise-addr "$(address "$i")" --listen-addr "$(address "$i")" --token "$token" \
            "$(address 1):2377" >/dev/null
    done
}

down() {
    local i
    for i in $(numbers); do machine_down "$nodes/n$i" && rm -f "$(socket "$i")"; done
    machine_down "$switch"
    ip link del "$link" 2>/dev/null || true
    sweep_cgroups
    rm -rf "$nodes"
    [ "$sockets" = "$sandbox" ] || rmdir "$sockets" 2>/dev/null || true
}

status() {
    local i
    for i in $(numbers); do
        if ! machine_pid "$nodes/n$i" >/dev/null; then
            echo "n$i: off"
        elif ! timeout 5 docker -H "unix://$(socket "$i")" version >/dev/null 2>&1; then
            echo "n$i: on, its engine does not answer"
        else
            echo "n$i: on, at $(address "$i") ($(socket "$i"))"
        fi
    done
}

signal_engine() {
    # shellcheck disable=SC2016 # for the shell inside
    inside "$nodes/n$2" sh -c 'kill "-$0" "$(cat /run/docker.pid)"' "$1"
}

print_env() {
    echo "export DOCKER_HOST='unix://$(socket "$1")'"
    echo "export DOCKER_CONFIG='$DOCKER_CONFIG'"
}

case $1 in
up) up "${2:-1}" "${3:-0}" "${@:4}" ;;
down) lock_state && down ;;
status) status ;;
*)
    [ $# -gt 1 ] || die "which node?"
    exists "$2"
    case $1 in
    env) print_env "$2" ;;
    docker) on "${@:2}" ;;
    exec) inside "$nodes/n$2" "${@:3}" ;;
    killd) signal_engine KILL "$2" ;;
    stopd) signal_engine TERM "$2" ;;
    start) engine "$2" ;;
    crash) machine_down "$nodes/n$2" ;;
    boot) machine "$2" && engine "$2" ;;
    part) inside "$switch" ip link set "port$2" down ;;
    heal) inside "$switch" ip link set "port$2" up ;;
    *) die "unknown command $1" ;;
    esac
    ;;
esac
