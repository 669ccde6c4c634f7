#!/usr/bin/env bash
# Runs all tests, those of the real Swarm included, and closes with the counts.
#
# usage: run.sh [unit|real|all|soak]
#   unit   lints, unit tests, the simulated Swarm: no engine needed
#   real   the suites marked "needs the sandbox", on a private Swarm that is started here and ended here
#   soak   what takes an hour or more and the others leave out: a kill at each of the first writes of every step, one a restore
#
# However this ends, by Ctrl-C too, the private Swarm ends with it; SKEP_TEST_KEEP=1 leaves it running.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
log=$(mktemp)
passed=0 failed=0 times='' swarm=''

finish() {
    trap "" INT TERM HUP
    rm -f "$log"
    [ -z "$swarm" ] || [ -n "${SKEP_TEST_KEEP:-}" ] || tests/sandbox/engine.sh down
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# took NAME SECONDS: for the table at the end
took() { times+=$(printf '%5s s  %s' "$2" "$1")$'\n'; }

# step NAME COMMAND…: one thing that passes or fails as a whole
step() {
    local name=$1 began=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n' "$name"
    fi
    took "$name" $((SECONDS - began))
}

# tests NAME COMMAND…: cargo test; its own counts are added up
tests() {
    local name=$1 began=$SECONDS status p f
    shift
    printf '\n== %s\n' "$name"
    "$@" 2>&1 | tee "$log" | grep -v -E '^test .* (ok|ignored.*)$|^$|^running '
    status=${PIPESTATUS[0]}
    p=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
    f=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
    [ "$status" = 0 ] || [ "$f" != 0 ] || f=1
    passed=$((passed + p)) failed=$((failed + f))
    printf -- '-- %s passed, %s failed\n' "$p" "$f"
    took "$name" $((SECONDS - began))
}

unit() {
    step "formatting and lints" make -s check
    tests "unit tests and the simulated Swarm" cargo test --workspace --no-fail-fast
}

# real [CARGO-TEST-FILTER…]: the suites of the real Swarm, each in its own process and one after the other: they share one
# engine.
real() {
    local filter=("${@:---skip=soak::}") suites suite
    suites=$(grep -l 'needs the sandbox' tests/tests/*.rs)
    [ $# = 0 ] || suites=$(grep -l '^mod soak' tests/tests/*.rs)
    swarm=ours
    tests/sandbox/engine.sh up || { failed=$((failed + 1)); return; }
    step "images" tests/sandbox/images.sh
    step "the runner, static and under 1,000,000 bytes" tests/runner-size.sh
    step "Skep's own image" tests/sandbox/images.sh skep:dev
    eval "$(tests/sandbox/engine.sh env)"
    export SKEP_DOCKER_SOCKET=${DOCKER_HOST#unix://}
    for suite in $suites; do
        suite=$(basename -s .rs "$suite")
        # `--workspace`: with the features that the unit tests were built with, so that nothing is built again.
        tests "$suite" cargo test --workspace --test "$suite" -- --ignored --test-threads 1 "${filter[@]}"
    done
}

case ${1:-all} in
unit) unit ;;
real) real ;;
all) unit && real ;;
soak) real soak:: ;;
*) echo "usage: run.sh [unit|real|all|soak]" >&2 && exit 2 ;;
esac
printf '\n%s%s passed, %s failed\n' "$times" "$passed" "$failed"
[ "$failed" = 0 ]
