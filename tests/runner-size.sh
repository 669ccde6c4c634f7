#!/usr/bin/env bash
# Builds the runner and checks what it must be: static, and small enough for a Swarm config.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
make -s runner
binary=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-musl/runner/skep-runner
size=$(stat -c %s "$binary")
[ "$size" -lt 1000000 ] || { echo "the runner has $size bytes"; exit 1; }
! readelf -d "$binary" 2>/dev/null | grep -q NEEDED || { echo "the runner is not static"; exit 1; }
