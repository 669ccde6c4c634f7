# shellcheck shell=bash
# What the sandbox's scripts share: where its state lives, its names and addresses, and how to make a "machine".
#
# Everything is named after a short hash of the state directory, so that several checkouts can run at once. A machine
# is a set of namespaces (network, mount, pid, uts) held open by its PID 1; killing that one process ends all of it.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
repo=$(cd "$here/../.." && pwd -P)
sandbox=${SKEP_SANDBOX_DIR:-$repo/.sandbox}

die() {
    echo "sandbox: $*" >&2
    exit 1
}

# Namespaces need root; somebody without it is asked for a password once.
as_root() {
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null || die "this needs root (or sudo)"
    exec sudo --preserve-env=PATH,SKEP_SANDBOX_DIR,SKEP_PULL,SKEP_REGISTRY,SKEP_COMPILED,CARGO_TARGET_DIR,http_proxy,https_proxy "$0" "$@"
}

open_state() {
    mkdir -p "$sandbox"
    sandbox=$(cd "$sandbox" && pwd -P)
    tag=$(printf %s "$sandbox" | sha256sum | cut -c1-6)
    # A unix socket's path has at most 107 bytes; ours are short names in here.
    sockets=$sandbox
    if [ ${#sandbox} -gt 85 ]; then
        sockets=/run/skep-$tag
    fi
    # 10.200-10.249: far from what Swarm and Docker hand out, and only ever on links of our own.
    # Per checkout: a /26 of which the single engine uses the first four addresses.
    local a=$((16#${tag:0:2} % 50 + 200)) b=$((16#${tag:2:2})) c=$(((16#${tag:4:2} & 3) * 64))
    # shellcheck disable=SC2034 # for the scripts that read this file
    net=10.$a.$b last=$c
}

# One caller at a time; the lock dies with the script (background processes get such descriptors closed).
lock_state() {
    exec 9>"$sandbox/lock"
    flock -w 300 9 || die "another command holds $sandbox/lock"
}

# eventually SECONDS WHAT COMMAND…: repeats COMMAND until it succeeds.
eventually() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "sandbox: gave up waiting for $what" >&2 && return 1; }
        sleep 0.03
    done
}

# The time a process started, which together with its id names it for good.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The second field, the name in brackets, may hold anything.
    read -ra stat <<<"${stat##*) }"
    echo "${stat[19]}"
}

# machine_pid STATE: prints PID 1 (as the host counts it) of a machine that is up.
machine_pid() {
    local pid start
    { read -r pid start <"$1/machine"; } 2>/dev/null || return 1
    [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}

# machine_up STATE HOSTNAME RESOLVER: makes the namespaces; without any link yet.
machine_up() {
    local state=$1 hostname=$2 resolver=$3 outer pid
    mkdir -p "$state" "$sockets"
    rm -f "$state/ready"
    setsid unshare --net --mount --uts --pid --fork --mount-proc --kill-child=KILL \
        "$here/machine.sh" "$state" "$sockets" "$hostname" "$resolver" \
        >"$state/machine.log" 2>&1 </dev/null 8>&- 9>&- &
    outer=$!
    disown "$outer"
    if ! eventually 20 "the namespaces" test -e "$state/ready"; then
        cat "$state/machine.log" >&2
        kill "$outer" 2>/dev/null
        return 1
    fi
    pid=$(cat "/proc/$outer/task/$outer/children")
    pid=${pid% }
    echo "$pid $(started_at "$pid")" >"$state/machine"
}

# machine_down STATE: everything in the machine dies with its PID 1, and its mounts with that.
machine_down() {
    local pid
    if pid=$(machine_pid "$1"); then
        kill -9 "$pid"
        eventually 20 "process $pid to end" gone "$pid" || return 1
    fi
    rm -f "$1/machine" "$1/ready"
}

gone() { ! kill -0 "$1"; }

# inside STATE COMMAND…: runs a command in a machine.
inside() {
    local pid
    pid=$(machine_pid "$1") || die "not running; start it with: $here/engine.sh up"
    shift
    # The shell goes back to the caller's directory as the machine sees it.
    # shellcheck disable=SC2016
    nsenter -t "$pid" -m -u -p -n -- sh -c 'cd "$0" 2>/dev/null; exec "$@"' "$PWD" "$@"
}

# dockerd_up STATE SOCKET ADDRESS: an engine inside a machine, with its data under STATE/data.
dockerd_up() {
    local state=$1 socket=$2 address=$3
    mkdir -p "$state/data"
    # An own configuration file: the user's /etc/docker/daemon.json must not leak in.
    cat >"$state/daemon.json" <<JSON
{
  "hosts": ["unix://$socket"],
  "data-root": "$state/data",
  "exec-root": "/run/docker",
  "pidfile": "/run/docker.pid",
  "dns": ["$address"],
  "cgroup-parent": "/skep-$tag",
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "log-level": "warn"
}
JSON
    inside "$state" rm -f /run/docker.pid
    rm -f "$socket"
    local pid
    pid=$(machine_pid "$state")
    setsid nsenter -t "$pid" -m -u -p -n -- dockerd --config-file "$state/daemon.json" \
        >>"$state/dockerd.log" 2>&1 </dev/null 8>&- 9>&- &
    disown $!
    eventually 60 "dockerd" docker -H "unix://$socket" version || { tail -n 20 "$state/dockerd.log" >&2 && return 1; }
    # Whoever asked for root by sudo may use the engine without it.
    [ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID" "$socket"
}

# copy_images FROM TO: what the engine with its data in FROM knows of its images, without its containers. Layers are never
# written to once they exist, so they are hard links: another engine has them within a second or two and in no room.
copy_images() {
    local from=$1 to=$2 id
    mkdir -p "$to/overlay2/l"
    [ -d "$from/image" ] || return 0
    cp -a "$from/image" "$to/"
    rm -rf "$to/image/overlay2/layerdb/mounts"
    for id in $(layers_of "$from"); do
        cp -al "$from/overlay2/$id" "$to/overlay2/"
        cp -a "$from/overlay2/l/$(<"$from/overlay2/$id/link")" "$to/overlay2/l/"
    done
}

layers_of() { awk 1 "$1"/image/overlay2/layerdb/sha256/*/cache-id; }

# unused ADDRESS: refuses addresses that this host already has a way to.
unused() {
    local way
    way=$(ip -4 route show match "$1" | grep -v '^default' || true)
    [ -z "$way" ] || die "the address $1 is in use here ($way); choose another directory by SKEP_SANDBOX_DIR"
}

# The control groups of containers that died with their machine stay behind, empty.
sweep_cgroups() {
    local dir
    for dir in /sys/fs/cgroup/skep-"$tag" /sys/fs/cgroup/*/skep-"$tag"; do
        [ -d "$dir" ] && find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null
    done
    return 0
}
