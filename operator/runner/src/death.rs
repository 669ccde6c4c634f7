//! Lets the tests kill the runner around each statement and each rename; compiled into debug builds only.

#[cfg(debug_assertions)]
pub(crate) fn may_come() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let passed = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    let at = std::env::var("SKEP_RUNNER_DIE_AT").ok().and_then(|at| at.parse().ok());
    if at == Some(passed) {
        let _never = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn may_come() {}
