#!/usr/bin/env bash
# Builds the images that the tests and the demo run, into the sandbox's engine.
#
# usage: images.sh [IMAGE…]     default: all of the table below, and shop:1 (the demo application);
#                               also skep:dev (Skep itself)
#
# Packages are installed on the host's network by apt, in an overlay above a small Debian root; only the difference
# becomes a layer. So the engine needs no way out, and the images share their base. An image whose recipe has not
# changed is left alone. Where skopeo is installed and a registry answers, official images are fetched instead
# (SKEP_PULL=0: never, SKEP_PULL=1: always; SKEP_REGISTRY: from where).
#
# A recipe is a directory in tests/images: install.sh (run in the root, with the version), Dockerfile, files to add.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# image         suite     recipe      version  whether there is an official image of this name
table='
postgres:15     bookworm  postgres    15       official
postgres:17     trixie    postgres    17       official
redis:7         bookworm  redis       7        official
mariadb:10      bookworm  mariadb     10.11    official
rabbitmq:3      bookworm  rabbitmq    3.10     official
nginx:1         bookworm  nginx       1        official
mail:1          trixie    mail        1        -
monitoring:1    bookworm  monitoring  1        -
'
registry=${SKEP_REGISTRY:-docker.io/library}
recipes=$repo/tests/images
binaries=${CARGO_TARGET_DIR:-$repo/target}/x86_64-unknown-linux-musl

named() { [[ " ${*:2} " == *" $1 "* ]]; }
wants() { [ $# = 1 ] || named "$@"; }

# Programs are compiled before root is asked for: the toolchain may be the caller's.
compile() {
    [ -z "${SKEP_COMPILED:-}" ] || return 0
    local cargo=(cargo build -q --target x86_64-unknown-linux-musl)
    cd "$repo"
    ! wants shop:1 "$@" || "${cargo[@]}" --release -p skep-shop
    ! named skep:dev "$@" || { "${cargo[@]}" --release -p skep && "${cargo[@]}" --profile runner -p skep-runner; }
    cd - >/dev/null
    export SKEP_COMPILED=yes
}

# recipe_hash SUITE RECIPE VERSION: changes with everything that an image is made of.
recipe_hash() {
    (
        cd "$recipes"
        echo "$*"
        # Not its path: another checkout, or one that has moved, needs no other images.
        sha256sum <"$here/rootfs.sh"
        find "$2" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    ) | sha256sum | cut -c1-16
}

# The images that the engine has, one "tag recipe" a line; fetched ones carry no recipe.
present() {
    docker image ls -q --filter reference='skep-test/*' --filter reference=skep | sort -u |
        xargs -r docker image inspect -f '{{range .RepoTags}}{{println . (index $.Config.Labels "skep.test.recipe")}}{{end}}'
}

registry_answers() {
    [ "${SKEP_PULL:-auto}" != 0 ] && command -v skopeo >/dev/null || return 1
    [ "${SKEP_PULL:-auto}" = 1 ] || timeout 2 skopeo inspect --raw "docker://$registry/$1" >/dev/null 2>&1
}

fetch() {
    skopeo copy -q "docker://$registry/$1" "docker-daemon:skep-test/$1" --dest-daemon-host "$DOCKER_HOST"
}

# Packaged images: what is missing is fetched, or built, the suites side by side.
packaged() {
    local image suite recipe version official hash is_near=
    declare -A todo=()
    while read -r image suite recipe version official; do
        wants "$image" "$@" || continue
        hash=$(recipe_hash "$suite" "$recipe" "$version")
        grep -qxE "skep-test/$image ($hash)?" <<<"$have" && continue
        if [ "$official" = official ] && [ -z "$is_near" ]; then
            is_near=$(registry_answers "$image" && echo yes || echo no)
        fi
        if [ "$official" = official ] && [ "$is_near" = yes ]; then
            fetch "$image"
        else
            todo[$suite]+=" $image=$recipe=$version=$hash"
        fi
    done < <(grep . <<<"$table")
    [ ${#todo[@]} = 0 ] || build
}

build() {
    local suite job failed=
    jobs=()
    # A job in the background does not hear Ctrl-C. Its namespace dies with it, and everything in that.
    trap '[ ${#jobs[@]} = 0 ] || kill -9 "${jobs[@]}" 2>/dev/null; rmdir "$sandbox"/build-* 2>/dev/null || true' EXIT
    trap 'exit 130' INT TERM HUP
    for suite in "${!todo[@]}"; do
        # An own mount and process namespace: whatever happens, no mount and no process of a build stays behind.
        # shellcheck disable=SC2086 # one argument an image
        unshare --mount --pid --fork --mount-proc --kill-child "$here/rootfs.sh" "$suite" ${todo[$suite]} &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=yes; done
    jobs=()
    trap - EXIT INT TERM HUP
    rmdir "$sandbox"/build-*
    [ -z "$failed" ] || die "not all images could be built"
    docker image prune -f >/dev/null
}

# static IMAGE RECIPE BINARY…: an image of programs that need nothing else.
static() {
    local image=$1 recipe=$2 hash binary context
    shift 2
    hash=$(sha256sum "$@" "$recipes/$recipe/Dockerfile" | cut -d' ' -f1 | sha256sum | cut -c1-16)
    grep -qxF "$image $hash" <<<"$have" && return
    context=(-C "$recipes/$recipe" Dockerfile)
    for binary; do context+=(-C "$(dirname "$binary")" "$(basename "$binary")"); done
    local log
    log=$(tar -c "${context[@]}" |
        DOCKER_BUILDKIT=0 docker build -q -t "$image" --label "skep.test.recipe=$hash" - 2>&1) ||
        { echo "$log" >&2 && return 1; }
}

compile "$@"
as_root "$@"
open_state
eval "$("$here/engine.sh" env)"
exec 8>"$sandbox/images.lock"
flock 8
have=$(present)
packaged "$@"
! wants shop:1 "$@" || static skep-test/shop:1 shop "$binaries/release/shop"
! named skep:dev "$@" || static skep:dev skep "$binaries/release/skep" "$binaries"/runner/skep-runner{,-dir,-wal,-service}
