//! Point in time: base backups, the write-ahead log as it is received, and recovery from both.
//!
//! ```text
//! receive ──▶ archive (eras of segments, how far they are whole)
//! base    ──▶ base.tar.gz beside a dump
//! recover: base + archive ──▶ scratch (a server in the job itself) ──▶ dump
//! ```
//!
//! Invariants: nothing is said to be received before the server knows that it is on the store's disk; a moment is
//! recovered only where everything up to it was received, without a gap; the live server is only asked, never changed.

mod archive;
mod base;
mod facts;
mod receive;
mod recover;
mod scratch;
mod supply;

pub(crate) use self::archive::prune;
pub(crate) use self::base::take;
pub(crate) use self::receive::{drop_slot, receive};
pub(crate) use self::recover::recover;
use crate::error::{Error, Result};

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lsn(u64);

// === impl Lsn ===

impl Lsn {
    /// Reads `0/3000028`.
    fn parse(text: &str) -> Result<Lsn> {
        let parts = text.trim().split_once('/');
        let parsed = parts.and_then(|(high, low)| {
            let part = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
            Some(Lsn(part(high)? << 32 | part(low)?))
        });
        parsed.ok_or_else(|| Error::refused(format!("`{text}` is not a position of the write-ahead log")))
    }
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}
