#!/usr/bin/env bash
# Runs all tests, those of the real Swarm included, and closes with the counts.
#
# usage: run.sh [unit|real|all|soak]
#   unit   lints, unit tests, the simulated Swarm: no engine needed
#   real   the suites marked "needs the sandbox", each in its own process, on private Swarms that are started here and ended
#          here
#   soak   what takes an hour or more and the others leave out: a kill at each of the first writes of every step, one a restore
#
# The real suites wait more than they work, so several lanes of them run side by side, each on an engine of its own
# (SKEP_TEST_LANES: how many; 2). Images are built while the tests are compiled, and Skep's own while others run. What runs
# beside others is shown whole, when it has ended. SKEP_TEST_FILTER names what to run of real and soak, as cargo does.
#
# However this ends, by Ctrl-C too, the private Swarms end with it; SKEP_TEST_KEEP=1 leaves the first one running.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
work=$(mktemp -d)
passed=0 failed=0 times='' swarm='' lanes=() extra=()
sandbox=${SKEP_SANDBOX_DIR:-$PWD/.sandbox}
# These take longest, so they begin first; what is not among them follows by name.
longest='real_update real_restart real_kill real_engines real_restore real_points real_full real_streams real_update real_wake real_stores real_restart real_deploy client'

finish() {
    trap "" INT TERM HUP
    local lane dir
    for lane in "${lanes[@]}"; do kill -- "-$lane" 2>/dev/null; done
    wait
    for dir in "${extra[@]}"; do SKEP_SANDBOX_DIR=$dir tests/sandbox/engine.sh wipe; done
    [ -z "$swarm" ] || [ -n "${SKEP_TEST_KEEP:-}" ] || tests/sandbox/engine.sh down
    rm -rf "$work"
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

# counts STATUS LOG: how many tests passed and failed; a command that failed without saying which counts as one, and so does
# one that passed and ran none
counts() {
    awk -v status="$1" '/^test result:/ { p += $4; f += $6; any = 1 } END { print any ? p : !status, f || !status ? f + 0 : 1 }' "$2"
}

# tests NAME COMMAND…: cargo test; its own counts are added up
tests() {
    local name=$1 began=$SECONDS p f
    shift
    printf '\n== %s\n' "$name"
    "$@" 2>&1 | tee "$work/log" | brief
    read -r p f < <(counts "${PIPESTATUS[0]}" "$work/log")
    passed=$((passed + p)) failed=$((failed + f))
    printf -- '-- %s passed, %s failed\n' "$p" "$f"
    took "$name" $((SECONDS - began))
}

brief() { grep -v -E '^test .* (ok|ignored.*)$|^$|^running '; }

unit() {
    step "formatting and lints" make -s check
    unit_tests
}

unit_tests() { tests "unit tests and the simulated Swarm" cargo test --workspace --no-fail-fast; }

# queued: the real suites, the longest first. Those that run jobs in Skep's own image wait for it, so they come last.
queued() {
    local all suite
    all=$(grep -l "$1" tests/tests/*.rs | xargs -n 1 basename -s .rs)
    for suite in $longest $all; do
        ! grep -qxF "$suite" <<<"$all" || needs_skep "$suite" || echo "$suite"
    done | awk '!seen[$0]++'
    for suite in $longest $all; do
        ! grep -qxF "$suite" <<<"$all" || ! needs_skep "$suite" || echo "$suite"
    done | awk '!seen[$0]++'
}

needs_skep() { grep -q 'skep:dev' "tests/tests/$1.rs"; }

# next: takes a suite off the queue
next() {
    exec 7>"$work/lock"
    flock 7
    head -n 1 "$work/queue"
    sed -i 1d "$work/queue"
    exec 7>&-
}

# aside NAME COMMAND…: something that runs beside others. Shows all that it said when it has ended, and leaves its counts for
# the sum.
aside() {
    local name=$1 began=$SECONDS p f
    shift
    "$@" >"$work/$name.log" 2>&1
    read -r p f < <(counts $? "$work/$name.log")
    echo "$p $f $((SECONDS - began))" >"$work/$name.counts"
    {
        printf '\n== %s\n' "$name"
        brief <"$work/$name.log"
        [ "$f" = 0 ] || printf 'FAILED: %s\n' "$name"
        printf -- '-- %s passed, %s failed in %s s\n' "$p" "$f" $((SECONDS - began))
    } | flock "$work/shown" cat
}

# beside COMMAND…: runs it in a process group of its own, so that all of it can be ended
beside() {
    set -m
    "$@" &
    lanes+=($!)
    set +m
}

# ended: waits for all that runs beside
ended() {
    wait "${lanes[@]}"
    lanes=()
}

# lane SANDBOX FILTER…: runs suites on this engine until none is left
lane() {
    local name
    eval "$(SKEP_SANDBOX_DIR=$1 tests/sandbox/engine.sh env)"
    export SKEP_DOCKER_SOCKET=${DOCKER_HOST#unix://}
    shift
    while name=$(next) && [ -n "$name" ]; do
        ! needs_skep "$name" || until [ -e "$work/image" ]; do sleep 0.1; done
        # `--workspace`: with the features that the unit tests were built with, so that nothing is built again.
        aside "$name" cargo test --workspace --test "$name" -- --ignored --test-threads 1 "$@"
    done
}

# docker_of SANDBOX ARG…: docker, on that engine
docker_of() {
    (
        eval "$(SKEP_SANDBOX_DIR=$1 tests/sandbox/engine.sh env)"
        docker "${@:2}"
    )
}

# skep_image: Skep's own image, for every engine
skep_image() {
    local dir status=0
    tests/sandbox/images.sh skep:dev || status=1
    for dir in "${extra[@]}"; do
        docker_of "$sandbox" save skep:dev | docker_of "$dir" load -q || status=1
    done
    return $status
}

# behind: what only the last suites wait for, in the time that everything else leaves
behind() {
    renice -n 15 "$BASHPID" >/dev/null
    SKEP_COMPILED='' aside "Skep's own image" skep_image
    touch "$work/image"
}

# prepared: what the first engine and the suites need before any of them begins
prepared() {
    aside "images" tests/sandbox/images.sh
    aside "the runner, static and under 1,000,000 bytes" tests/runner-size.sh
}

# real MARK BEFORE [CARGO-TEST-FILTER…]: the suites with this mark, and whether lints and unit tests run before them
real() {
    local mark=$1 before=$2 count=${SKEP_TEST_LANES:-2} i name p f seconds
    shift 2
    queued "$mark" >"$work/queue"
    swarm=ours
    tests/sandbox/engine.sh up || { failed=$((failed + 1)); return; }
    beside prepared
    [ -z "$before" ] || step "formatting and lints" make -s check
    step "the tests, built" cargo test --workspace --no-run -q
    ended
    for ((i = 2; i <= count; i++)); do
        extra+=("$sandbox.$i")
        SKEP_SANDBOX_DIR=$sandbox.$i tests/sandbox/engine.sh up --like "$sandbox" || { failed=$((failed + 1)); return; }
    done
    # The images are there: no lane waits for cargo to say so again.
    export SKEP_COMPILED=yes
    beside behind
    [ -z "$before" ] || unit_tests
    for i in "$sandbox" "${extra[@]}"; do beside lane "$i" "$@"; done
    ended
    for name in "$work"/*.counts; do
        read -r p f seconds <"$name"
        passed=$((passed + p)) failed=$((failed + f))
        took "$(basename -s .counts "$name")" "$seconds"
    done
}

case ${1:-all} in
unit) unit ;;
real) real 'needs the sandbox' '' "${SKEP_TEST_FILTER:---skip=soak::}" ;;
all) real 'needs the sandbox' unit --skip=soak:: ;;
soak) real '^mod soak' '' "${SKEP_TEST_FILTER:-soak::}" ;;
*) echo "usage: run.sh [unit|real|all|soak]" >&2 && exit 2 ;;
esac
printf '\n%s%s passed, %s failed\n' "$times" "$passed" "$failed"
[ "$failed" = 0 ]
