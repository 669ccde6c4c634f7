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
shellcheck       shellcheck
redis-check-rdb  redis-tools
mariadbd         mariadb-server-core
mariadb-dump     mariadb-client
'

missing=()
while read -r program package; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("$package")
done < <(grep . <<<"$needs")

if [ ${#missing[@]} = 0 ]; then
    echo "all Debian packages are there"
else
    echo "installing: ${missing[*]}"
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

command -v rustup >/dev/null || die "rustup is needed: https://rustup.rs"
(cd "$repo" && rustup target add x86_64-unknown-linux-musl)
