//! Headers and PAX records, byte by byte.

use super::BLOCK;
use crate::error::{Error, Result};

/// Largest number that an octal field of 12 bytes holds: larger ones need a record.
pub(super) const LARGEST_SIZE: u64 = 0o777_7777_7777;
/// Largest owner that an octal field of 8 bytes holds.
pub(super) const LARGEST_ID: u32 = 0o7_777_777;
/// Longest name in a header.
pub(super) const LONGEST_NAME: usize = 100;

/// The mark of headers as POSIX has them.
const POSIX: &[u8] = b"ustar\x0000";

/// A raw header.
pub(super) struct Header(pub(super) [u8; BLOCK]);

/// What a header says, as it stands.
pub(super) struct Fields<'a> {
    pub(super) name: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: u64,
    pub(super) kind: u8,
    pub(super) link: &'a [u8],
    /// What stands before the name, in the archives of others.
    pub(super) prefix: &'a [u8],
}

// === impl Header ===

impl Header {
    /// Numbers must fit: what does not goes into a record, and 0 here.
    pub(super) fn new(fields: &Fields<'_>) -> Header {
        let mut bytes = [0; BLOCK];
        put(&mut bytes[..LONGEST_NAME], fields.name);
        octal(&mut bytes[100..108], u64::from(fields.mode));
        octal(&mut bytes[108..116], u64::from(fields.uid));
        octal(&mut bytes[116..124], u64::from(fields.gid));
        octal(&mut bytes[124..136], fields.size);
        octal(&mut bytes[136..148], fields.mtime);
        bytes[156] = fields.kind;
        put(&mut bytes[157..257], fields.link);
        put(&mut bytes[257..265], POSIX);
        let sum = sum_of(&bytes);
        octal(&mut bytes[148..155], sum);
        bytes[155] = b' ';
        Header(bytes)
    }

    /// Whether it is one of the blocks of zeros that end an archive.
    pub(super) fn is_end(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Refuses a header whose sum is wrong, or that is of another kind of archive.
    pub(super) fn fields(&self) -> Result<Fields<'_>> {
        let bytes = &self.0;
        if number(&bytes[148..156])? != sum_of(bytes) || !bytes[257..].starts_with(b"ustar") {
            return Err(Error::refused("the archive is damaged: a header is none"));
        }
        let is_posix = bytes[257..].starts_with(POSIX);
        if !is_posix && bytes[345..500].iter().any(|byte| *byte != 0) {
            return Err(Error::refused("the archive is incremental, or of an unknown kind"));
        }
        Ok(Fields {
            prefix: text(if is_posix { &bytes[345..500] } else { &[] }),
            name: text(&bytes[..LONGEST_NAME]),
            mode: number(&bytes[100..108])? as u32,
            uid: number(&bytes[108..116])? as u32,
            gid: number(&bytes[116..124])? as u32,
            size: number(&bytes[124..136])?,
            mtime: number(&bytes[136..148])?,
            kind: bytes[156],
            link: text(&bytes[157..257]),
        })
    }
}

/// Appends `<length> <key>=<value>\n`, whose length counts its own digits.
pub(super) fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + digits(rest);
    if rest + digits(length) > length {
        length = rest + digits(length);
    }
    to.extend_from_slice(format!("{length} ").as_bytes());
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

/// Splits records into keys and values.
pub(super) fn records(mut from: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let damaged = || Error::refused("the archive is damaged: a PAX record is none");
    let mut found = Vec::new();
    while !from.is_empty() {
        let space = from.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let length = decimal(&from[..space]).ok_or_else(damaged)? as usize;
        if length <= space + 1 || length > from.len() || from[length - 1] != b'\n' {
            return Err(damaged());
        }
        let pair = &from[space + 1..length - 1];
        let equals = pair.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
        found.push((&pair[..equals], &pair[equals + 1..]));
        from = &from[length..];
    }
    Ok(found)
}

/// A decimal number of ASCII digits.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    put(field, format!("{number:0width$o}").as_bytes());
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn number(field: &[u8]) -> Result<u64> {
    // What octal digits cannot hold, GNU's tar writes as it is.
    if let Some((0x80, rest)) = field.split_first() {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if high.iter().all(|byte| *byte == 0) {
            return Ok(low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
    }
    let digits = text(field).trim_ascii();
    if digits.is_empty() {
        return Ok(0);
    }
    let parsed = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 8).ok());
    parsed.ok_or_else(|| Error::refused("the archive is damaged: a number is none"))
}

/// The sum of a header's bytes with its own field as blanks.
fn sum_of(bytes: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&bytes[..148]) + 8 * u64::from(b' ') + sum(&bytes[156..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_its_own_digits() {
        for size in [0, 1, 3, 4, 5, 80, 90, 91, 92, 93, 94, 95, 989, 990, 991, 992, 993, 994, 1000] {
            let (mut bytes, value) = (Vec::new(), vec![b'v'; size]);
            record(&mut bytes, b"key", &value);
            assert_eq!(bytes.split(|b| *b == b' ').next().unwrap(), bytes.len().to_string().as_bytes());
            assert_eq!(records(&bytes).unwrap(), [(b"key".as_slice(), value.as_slice())]);
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for bytes in
            [&b"9 key=v"[..], b"7 key=v\n", b"x key=v\n", b"8 keyvv\n", b"0 ", b"99999999999999999999 a=b\n"]
        {
            assert!(records(bytes).is_err(), "{bytes:?}");
        }
    }
}
