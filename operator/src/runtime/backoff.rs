//! How long to wait after the nth failure: exponential with full jitter. Pure.

use std::time::Duration;

/// An exponential backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait after the first failure.
    pub first: Duration,
    /// Longest wait ever.
    pub cap: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// The wait after so many failures (from 1), anywhere between nothing and a ceiling that doubles with each; `random` is
    /// in 0..1. Spread over the whole range, so that many who fail together do not return together.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        self.ceiling(failures).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Longest wait after so many failures (from 1).
    pub fn ceiling(&self, failures: u32) -> Duration {
        let factor = 2_u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.checked_mul(factor).unwrap_or(self.cap).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(300) };

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let seconds: Vec<u64> = (1..=11).map(|n| BACKOFF.ceiling(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    proptest! {
        #[test]
        fn no_wait_is_beyond_its_ceiling(failures in any::<u32>(), random in 0.0..1.0) {
            let delay = BACKOFF.delay(failures, random);
            prop_assert!(delay <= BACKOFF.ceiling(failures) && delay <= BACKOFF.cap);
        }

        #[test]
        fn any_wait_up_to_the_ceiling_can_come(failures in 1..20_u32) {
            prop_assert_eq!(BACKOFF.delay(failures, 0.0), Duration::ZERO);
            prop_assert_eq!(BACKOFF.delay(failures, 1.0), BACKOFF.ceiling(failures));
        }
    }
}
