#!/usr/bin/env bash
# Installs what `make test` and `make demo` need and is missing: Debian packages, and the Rust target.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Servers come in packages that start none: Redis's is its checker under another name.
# program        package
needs='
dockerd          docker.io
mmdebstrap       mmdebstrap
musl-gcc         musl-tools
ip               iproute2
iptables         iptables
openssl          openssl
curl             curl
jq               jq
skopeo           skopeo
age              age
zstd             zstd
shellcheck       shellcheck
redis-check-rdb  redis-tools
mariadbd         mariadb-server-core
mariadb-dump     mariadb-client
'

missing=()
while read -r program package; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("$package")
done < <(grep . <<<"$needs")
# The server's programs lie where no search path leads.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)

# install PACKAGE…: without the cluster that PostgreSQL's package would make and start
install() {
    local root=() no_cluster=/etc/postgresql-common/createcluster.d/skep-tests.conf status=0
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" mkdir -p "${no_cluster%/*}"
    echo 'create_main_cluster = false' | "${root[@]}" tee "$no_cluster" >/dev/null
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" || status=$?
    "${root[@]}" rm -f "$no_cluster"
    return "$status"
}

if [ ${#missing[@]} = 0 ]; then
    echo "all Debian packages are there"
else
    echo "installing: ${missing[*]}"
    install "${missing[@]}"
fi

command -v rustup >/dev/null || die "rustup is needed: https://rustup.rs"
(cd "$repo" && rustup target add x86_64-unknown-linux-musl)
