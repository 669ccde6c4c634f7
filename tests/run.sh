#!/usr/bin/env bash
# Runs all tests, those of the real Swarm included, and closes with the counts.
#
# usage: run.sh [unit|real|all|soak]
#   unit   lints, unit tests, the simulated Swarm: no engine needed
#   real   the suites marked "needs the sandbox", on a private Swarm that is started here and ended here
#   soak   the long ones among them, which the others leave out: a kill at every step, deploys in the middle, real alerts
#
# SKEP_TEST_KEEP=1 leaves the private Swarm running.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0

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
    printf -- '-- %s: %s s\n' "$name" $((SECONDS - began))
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
    printf -- '-- %s: %s passed, %s failed, %s s\n' "$name" "$p" "$f" $((SECONDS - began))
}

unit() {
    step "formatting and lints" make -s check
    tests "unit tests and the simulated Swarm" cargo test --workspace --no-fail-fast
}

long='real_kill real_deploy real_alertmanager'

# The suites of the real Swarm, each in its own process and one after the other: they share one engine.
real() {
    local suites=${1:-}
    [ -n "$suites" ] || suites=$(grep -l 'needs the sandbox' tests/tests/*.rs | xargs -n1 basename -s .rs |
        grep -v -x -F "$(tr ' ' '\n' <<<"$long")")
    tests/sandbox/engine.sh up || { failed=$((failed + 1)); return; }
    step "images" tests/sandbox/images.sh
    step "the runner, static and under 1,000,000 bytes" tests/runner-size.sh
    step "Skep's own image" tests/sandbox/images.sh skep:dev
    eval "$(tests/sandbox/engine.sh env)"
    export SKEP_DOCKER_SOCKET=${DOCKER_HOST#unix://}
    local suite
    for suite in $suites; do
        tests "$suite, on the real Swarm" cargo test -p skep-tests --test "$suite" -- --ignored --test-threads 1
    done
    [ -n "${SKEP_TEST_KEEP:-}" ] || tests/sandbox/engine.sh down
}

case ${1:-all} in
unit) unit ;;
real) real ;;
all) unit && real ;;
soak) real "$long" ;;
*) echo "usage: run.sh [unit|real|all|soak]" >&2 && exit 2 ;;
esac
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
