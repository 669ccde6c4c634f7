#!/usr/bin/env bash
# One private Docker engine, a swarm of one, in namespaces of its own. The user's own Docker is never touched.
#
# usage: engine.sh up [--keep]   start it (nothing to do if it runs); wipes the swarm, containers and volumes of the
#                                last run unless --keep; images stay
#        engine.sh up --like DIR start it with the images of the sandbox in DIR, as they are now, and with nothing else
#        engine.sh down          end it: no process, mount, link or control group stays behind
#        engine.sh status        say whether it runs
#        engine.sh env           print the variables that point a docker client at it
#        engine.sh exec CMD…     run a command inside its namespaces (127.0.0.1 is the engine's there)
#        engine.sh wipe          down, then remove all of its state, images included
#
# State: .sandbox/ in the checkout, or SKEP_SANDBOX_DIR.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ $# -gt 0 ] || die "usage: engine.sh up|down|status|env|exec|wipe"
# Where things are is for everybody to know.
[ "$1" = env ] || as_root "$@"
open_state

state=$sandbox/engine
socket=$sockets/docker.sock
outside=$net.$((last + 1))
address=$net.$((last + 2))
link=skep$tag

export DOCKER_HOST=unix://$socket DOCKER_CONFIG=$sandbox/docker-config
unset DOCKER_CONTEXT

running() { machine_pid "$state" >/dev/null && docker version >/dev/null 2>&1; }

up() {
    lock_state
    running && return
    local keep=${1:-} lender=
    [ "$keep" != --like ] || lender=$(cd "$2" && pwd -P)
    down
    [ -z "$lender" ] || borrow "$lender"
    [ "$keep" = --keep ] || forget
    unused "$address"
    machine_up "$state" "skep-$tag" "$address"
    wire
    : >"$state/dockerd.log"
    dockerd_up "$state" "$socket" "$address"
    [ "$keep" = --keep ] || sweep_containers
    if [ "$(docker info --format '{{.Swarm.LocalNodeState}}')" != active ]; then
        docker swarm init --advertise-addr "$address" --listen-addr "$address" >/dev/null
    fi
}

# A link of our own between the host and the machine: the host can reach published ports, nothing can get out.
wire() {
    local pid
    pid=$(machine_pid "$state")
    ip link add "$link" type veth peer name eth0 netns "$pid"
    ip addr add "$outside/30" dev "$link"
    ip link set "$link" up
    inside "$state" ip addr add "$address/30" dev eth0
    inside "$state" ip link set eth0 up
}

# borrow SANDBOX: all that this engine had goes; what it knows then is the other one's images.
borrow() {
    # None of them may change while it is copied.
    exec 8>"$1/images.lock"
    flock 8
    rm -rf "$state/data"
    copy_images "$1/engine/data" "$state/data"
    exec 8>&-
}

# What an engine remembers of its swarm and networks, removed while it is down.
forget() {
    rm -rf "$state"/data/{swarm,network,volumes}
}

# Containers of the last run are removed by the engine itself, which knows their layers.
sweep_containers() {
    local left
    left=$(docker ps -aq)
    # shellcheck disable=SC2086 # one argument for each
    [ -z "$left" ] || docker rm -f $left >/dev/null
}

down() {
    machine_down "$state"
    ip link del "$link" 2>/dev/null || true
    sweep_cgroups
    rm -f "$socket"
    [ "$sockets" = "$sandbox" ] || rmdir "$sockets" 2>/dev/null || true
}

print_env() {
    echo "export DOCKER_HOST='$DOCKER_HOST'"
    echo "export DOCKER_CONFIG='$DOCKER_CONFIG'"
    echo "export SKEP_SANDBOX_DIR='$sandbox'"
    echo "export SKEP_SANDBOX_ADDRESS='$address'"
    echo "export SKEP_SANDBOX_HOST='$outside'"
}

case $1 in
up) up "${@:2}" ;;
down) lock_state && down ;;
status) if running; then echo "running at $address ($socket)"; else echo "not running" && exit 1; fi ;;
env) print_env ;;
exec) shift && inside "$state" "$@" ;;
wipe) lock_state && down && rm -rf "$sandbox" ;;
*) die "unknown command $1" ;;
esac
