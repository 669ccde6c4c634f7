//! The only place that reads a clock. Everything that decides takes the time as an argument.

use std::time::Duration;

use jiff::Timestamp;

/// The wall clock.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads it")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Time since boot, counting suspended time: two readings on one machine tell how long ago something was,
/// also when the process or the machine was paused in between.
pub fn boot_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or_default(), u32::try_from(t.tv_nsec).unwrap_or_default())
}
