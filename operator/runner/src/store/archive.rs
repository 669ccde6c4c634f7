//! The head of a dump in PostgreSQL's custom format: what it is of, when it was made, by which versions.
//!
//! ```text
//! "PGDMP" major minor revision  int-size offset-size format  compression  7 × int (time)  3 × string
//! ```
//! An int is a sign byte and `int-size` bytes, the lowest first; a string is an int and so many bytes.

use crate::task::ArchiveHead;

/// First bytes of a dump.
const MAGIC: &[u8] = b"PGDMP";
/// Number of the custom format.
const CUSTOM: u8 = 1;
/// Longest text that is believed, in bytes.
const LONGEST: usize = 200;

/// Reads a head from the first bytes of a file (4 KiB are plenty).
pub(super) fn head(bytes: &[u8]) -> Result<ArchiveHead, &'static str> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is not a dump in PostgreSQL's custom format")?;
    let mut at = Reader { rest, int_size: 0 };
    understood(&mut at).ok_or("the head of the dump makes no sense")
}

fn understood(at: &mut Reader<'_>) -> Option<ArchiveHead> {
    let [major, minor, _revision] = at.bytes()?;
    // 1.12 is of PostgreSQL 9.0, the oldest that any tool in use writes.
    if major != 1 || minor < 12 {
        return None;
    }
    let [int_size, _offset_size, format] = at.bytes()?;
    at.int_size = usize::from(int_size);
    if format != CUSTOM || !(1..=8).contains(&at.int_size) {
        return None;
    }
    if minor >= 15 {
        let [_algorithm] = at.bytes()?;
    } else {
        at.int()?;
    }
    let mut time = [0; 7];
    for part in &mut time {
        *part = at.int()?;
    }
    let [second, minute, hour, day, month, year, _summer] = time;
    let (month, year) = (month + 1, year + 1900);
    let makes_sense = (0..=60).contains(&second)
        && (0..60).contains(&minute)
        && (0..24).contains(&hour)
        && (1..=31).contains(&day)
        && (1..=12).contains(&month)
        && (1970..=9999).contains(&year);
    let (database, server, tool) = (at.text()?, at.text()?, at.text()?);
    makes_sense.then_some(())?;
    Some(ArchiveHead {
        database,
        made: format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second.min(59)),
        server_version: number(&server)?,
        tool_version: tool,
    })
}

/// `15.4 (Debian …)` as 150004; `9.6.24` as 90624.
fn number(version: &str) -> Option<String> {
    let plain: String = version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let mut parts = plain.split('.').map(|part| part.parse::<u32>().ok().filter(|n| *n < 10_000));
    let major = parts.next()??;
    let minor = parts.next().flatten().unwrap_or(0);
    let patch = parts.next().flatten().unwrap_or(0);
    Some(if major >= 10 { major * 10_000 + minor } else { major * 10_000 + minor * 100 + patch }.to_string())
}

/// What is left to read.
struct Reader<'a> {
    rest: &'a [u8],
    int_size: usize,
}

// === impl Reader ===

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn int(&mut self) -> Option<i64> {
        let [sign] = self.bytes()?;
        let (bytes, rest) = self.rest.split_at_checked(self.int_size)?;
        self.rest = rest;
        let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let value = i64::try_from(value).ok()?;
        Some(if sign == 0 { value } else { -value })
    }

    /// One that is absent is empty.
    fn text(&mut self) -> Option<String> {
        let length = self.int()?;
        let length = usize::try_from(length.max(0)).ok().filter(|length| *length <= LONGEST)?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: i32) -> Vec<u8> {
        [vec![u8::from(value < 0)], value.unsigned_abs().to_le_bytes().to_vec()].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [int(text.len() as i32), text.as_bytes().to_vec()].concat()
    }

    fn dump(minor: u8, compression: &[u8]) -> Vec<u8> {
        let time = [5, 0, 2, 15, 1, 124, 0].map(int).concat();
        let texts = [text("shop"), text("15.4 (Debian 15.4-1)"), text("16.1")].concat();
        [MAGIC, &[1, minor, 0, 4, 8, CUSTOM], compression, &time, &texts].concat()
    }

    #[test]
    fn heads_of_old_and_new_dumps_are_read() {
        for bytes in [dump(12, &int(-1)), dump(14, &int(6)), dump(15, &[1]), dump(16, &[1])] {
            let head = head(&bytes).unwrap();
            assert_eq!((head.database.as_str(), head.made.as_str()), ("shop", "2024-02-15T02:00:05Z"));
            assert_eq!((head.server_version.as_str(), head.tool_version.as_str()), ("150004", "16.1"));
        }
    }

    #[test]
    fn whatever_bytes_there_are_nothing_panics_and_half_a_head_is_none() {
        let whole = dump(16, &[1]);
        for length in 0..whole.len() {
            assert!(head(&whole[..length]).is_err());
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut odd = whole.clone();
                odd[at] = value;
                drop(head(&odd));
            }
        }
    }

    #[test]
    fn versions_are_numbers() {
        for (version, wanted) in
            [("17.2", Some("170002")), ("9.6.24", Some("90624")), ("16beta1", Some("160000")), ("x", None)]
        {
            assert_eq!(number(version).as_deref(), wanted);
        }
    }
}
