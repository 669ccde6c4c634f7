#!/usr/bin/env bash
# Builds the images that the tests and the demo run, into the sandbox's engine.
#
# usage: images.sh [NAME:TAG…]     default: all of the table below, and shop:1 (the demo application)
#
# Packages are installed on the host's network by apt, in an overlay above a small Debian root; only the difference
# becomes a layer. So the engine needs no way out, and the images share their base. An image whose recipe has not
# changed is left alone. Where skopeo is installed and a registry answers, official images are fetched instead
# (SKEP_PULL=0: never, SKEP_PULL=1: always).
#
# A recipe is a directory in tests/images: install.sh (run in the root, with the version), Dockerfile, files to add.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The demo application is compiled before root is asked for: the toolchain may be the caller's.
wants() { [ $# = 1 ] || [[ " ${*:2} " == *" $1 "* ]]; }
binaries=${CARGO_TARGET_DIR:-$repo/target}/x86_64-unknown-linux-musl/release
if wants shop:1 "$@" && [ -z "${SKEP_COMPILED:-}" ]; then
    (cd "$repo" && cargo build -q --release --target x86_64-unknown-linux-musl -p skep-shop)
    export SKEP_COMPILED=yes
fi

as_root "$@"
open_state
eval "$("$here/engine.sh" env)"

recipes=$repo/tests/images

# image         suite     recipe      version  the official image that it stands for, if any
table='
postgres:15     bookworm  postgres    15       docker.io/library/postgres:15
postgres:17     trixie    postgres    17       docker.io/library/postgres:17
redis:7         bookworm  redis       7        docker.io/library/redis:7
nginx:1         bookworm  nginx       1        docker.io/library/nginx:1
mail:1          trixie    mail        1        -
monitoring:1    bookworm  monitoring  1        -
'

# recipe_hash SUITE RECIPE VERSION: changes with everything that an image is made of.
recipe_hash() {
    (
        cd "$recipes"
        echo "$*"
        sha256sum "$here/rootfs.sh"
        find "$2" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    ) | sha256sum | cut -c1-16
}

# The images that the engine has, one "tag recipe" a line; fetched ones carry no recipe.
present() {
    docker image ls -q --filter reference='skep-test/*' | sort -u |
        xargs -r docker image inspect -f '{{range .RepoTags}}{{println . (index $.Config.Labels "skep.test.recipe")}}{{end}}'
}

registry_answers() {
    [ "${SKEP_PULL:-auto}" != 0 ] && command -v skopeo >/dev/null || return 1
    [ "${SKEP_PULL:-auto}" = 1 ] || timeout 2 skopeo inspect --raw "docker://$1" >/dev/null 2>&1
}

# fetch IMAGE OFFICIAL
fetch() {
    skopeo copy -q "docker://$2" "docker-daemon:skep-test/$1" --dest-daemon-host "$DOCKER_HOST"
}

build_suite() {
    local suite=$1
    shift
    # An own mount and process namespace: whatever happens, no mount and no process of a build stays behind.
    unshare --mount --pid --fork --mount-proc --kill-child "$here/rootfs.sh" "$suite" "$@"
}

main() {
    local have image suite recipe version official hash registry=
    declare -A todo
    have=$(present)
    while read -r image suite recipe version official; do
        wants "$image" "$@" || continue
        hash=$(recipe_hash "$suite" "$recipe" "$version")
        grep -qxE "skep-test/$image ($hash)?" <<<"$have" && continue
        if [ "$official" != - ] && [ -z "$registry" ]; then
            registry=$(registry_answers "$official" && echo yes || echo no)
        fi
        if [ "$official" != - ] && [ "$registry" = yes ]; then
            fetch "$image" "$official"
        else
            todo[$suite]+=" $image=$recipe=$version=$hash"
        fi
    done < <(grep . <<<"$table")
    build
    ! wants shop:1 "$@" || shop
}

# Suites are built side by side.
build() {
    local suite job jobs=() failed=
    for suite in "${!todo[@]}"; do
        # shellcheck disable=SC2086 # one argument an image
        build_suite "$suite" ${todo[$suite]} &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=yes; done
    [ -z "$failed" ] || die "not all images could be built"
    [ ${#jobs[@]} = 0 ] || docker image prune -f >/dev/null
}

# The demo application: one static binary.
shop() {
    local hash
    hash=$(sha256sum "$binaries/shop" "$recipes/shop/Dockerfile" | sha256sum | cut -c1-16)
    grep -qxF "skep-test/shop:1 $hash" <<<"$have" && return
    tar -c -C "$recipes/shop" Dockerfile -C "$binaries" shop |
        DOCKER_BUILDKIT=0 docker build -q -t skep-test/shop:1 --label "skep.test.recipe=$hash" - 2>/dev/null >&2
}

lock_images() {
    exec 8>"$sandbox/images.lock"
    flock 8
}

lock_images
main "$@"
