#!/usr/bin/env bash
# Builds images of one Debian suite; called by images.sh in namespaces of its own, which end with it.
#
# usage: rootfs.sh SUITE TAG=RECIPE=VERSION=HASH…
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
open_state
suite=$1
shift
# The plain builder is enough here, and needs no plug-in.
export DOCKER_BUILDKIT=0

# Everything below lives in memory: half the time of a disk.
work=$sandbox/build-$suite
mkdir -p "$work"
mount -t tmpfs -o mode=755 tmpfs "$work"
export TMPDIR=$work

# uri PATTERN DEFAULT: the mirror that this host's own apt uses.
uri() {
    # shellcheck disable=SC2016 # apt's own variable
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 "$1" || echo "$2"
}

# Makes $work/base, a small Debian with apt.
make_base() {
    local debian security
    debian=$(uri '/debian/*$' http://deb.debian.org/debian)
    security=$(uri '/debian-security/*$' http://deb.debian.org/debian-security)
    # shellcheck disable=SC2016 # the hook's own argument
    mmdebstrap -q --variant=apt --include=passwd --mode=root --format=directory \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "5"' --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --skip=cleanup/apt/lists \
        --customize-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d" && chmod 755 "$1/usr/sbin/policy-rc.d"' \
        "$suite" "$work/base" "deb $debian $suite main" "deb $security $suite-security main"
}

layer() { tar --numeric-owner --exclude=./var/lib/apt/lists/* --exclude=./var/cache/apt/* --exclude=./var/log/apt --exclude=./var/log/*.log "$@" .; }

# install RECIPE VERSION: leaves in $work/$1/upper what the recipe adds to the base.
install() {
    local root=$work/$1/root dir
    mkdir -p "$work/$1"/{upper,work,root}
    mount -t overlay overlay -o "lowerdir=$work/base,upperdir=$work/$1/upper,workdir=$work/$1/work" "$root"
    for dir in proc dev; do mount --rbind "/$dir" "$root/$dir"; done
    : >>"$root/etc/resolv.conf"
    mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
    env -u TMPDIR DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" sh -eu -s -- "$2" <"$repo/tests/images/$1/install.sh" >"$work/$1/log" 2>&1 ||
        { tail -n 30 "$work/$1/log" >&2 && die "could not install $1 $2"; }
    umount -l "$root/etc/resolv.conf" "$root/proc" "$root/dev" "$root"
    # Files of the base that went away show as devices here; layers of other kinds than an overlay do not know them.
    find "$work/$1/upper" -type c -delete
}

# image TAG RECIPE VERSION HASH
image() {
    local context=$work/$2/context
    install "$2" "$3"
    cp -a "$repo/tests/images/$2" "$context"
    layer -C "$work/$2/upper" -cf "$context/root.tar"
    docker build -q -t "skep-test/$1" --label "skep.test.recipe=$4" --build-arg "BASE=skep-test/base:$suite" \
        --build-arg "VERSION=$3" "$context" >/dev/null 2>"$work/$2/log" || { cat "$work/$2/log" >&2 && return 1; }
    rm -rf "$work/${2:?}"
}

since=$EPOCHREALTIME
step() {
    awk -v a="$since" -v b="$EPOCHREALTIME" -v what="$1" 'BEGIN { printf "%-24s %5.1f s\n", what, b - a }'
    since=$EPOCHREALTIME
}

make_base
layer -C "$work/base" -c | docker import -c 'ENV LANG=C.UTF-8' -c 'CMD ["bash"]' - "skep-test/base:$suite" >/dev/null
step "base:$suite"
for item; do
    IFS='=' read -r name recipe version hash <<<"$item"
    image "$name" "$recipe" "$version" "$hash"
    step "$name"
done
