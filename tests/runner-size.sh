#!/usr/bin/env bash
# Builds the runner's binaries and checks what each must be: static, and small enough for a Swarm config.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
make -s runner
for name in skep-runner skep-runner-dir skep-runner-wal skep-runner-service; do
    binary=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-musl/runner/$name
    size=$(stat -c %s "$binary")
    [ "$size" -lt 1000000 ] || { echo "$name has $size bytes"; exit 1; }
    ! readelf -d "$binary" 2>/dev/null | grep -q NEEDED || { echo "$name is not static"; exit 1; }
    "$binary" --version
done
