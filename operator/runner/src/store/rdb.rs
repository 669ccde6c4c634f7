//! What an RDB tells of itself before its keys.

/// Length of its magic, with the version.
const MAGIC: usize = 9;
/// What comes before a pair of texts about the file.
const ABOUT: u8 = 0xfa;

/// What its head tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// When it was made, in seconds since 1970; old servers do not say.
    pub(super) made: Option<i64>,
    /// Whether it is what append-only files begin with: what was written later stands behind it, or in other files.
    pub(super) is_base: bool,
}

/// Reads the beginning of a file; none where it is no RDB.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    // Valkey 9 writes its own name, as long as it is no older Redis that is to read it.
    if !(bytes.starts_with(b"REDIS") || bytes.starts_with(b"VALKEY")) {
        return None;
    }
    let mut head = Head::default();
    let mut rest = bytes.get(MAGIC..).unwrap_or_default();
    while let Some((key, value, after)) = pair(rest) {
        let number = str::from_utf8(&value).ok().and_then(|digits| digits.parse::<i64>().ok());
        match key.as_slice() {
            b"ctime" => head.made = number,
            b"aof-base" | b"aof-preamble" => head.is_base |= number != Some(0),
            _ => {}
        }
        rest = after;
    }
    Some(head)
}

fn pair(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>, &[u8])> {
    let (key, rest) = text(bytes.strip_prefix(&[ABOUT])?)?;
    let (value, rest) = text(rest)?;
    Some((key, value, rest))
}

/// A text with its length before it, or a number as its digits; none where it is neither.
fn text(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let low = usize::from(first & 0x3f);
    let digits = |number: i32| number.to_string().into_bytes();
    Some(match (first >> 6, low) {
        (0, length) => (rest.get(..length)?.to_vec(), &rest[length..]),
        (1, high) => {
            let (next, rest) = rest.split_first()?;
            let length = high << 8 | usize::from(*next);
            (rest.get(..length)?.to_vec(), &rest[length..])
        }
        (3, 0) => {
            let (number, rest) = rest.split_first_chunk()?;
            (digits(i8::from_le_bytes(*number).into()), rest)
        }
        (3, 1) => {
            let (number, rest) = rest.split_first_chunk()?;
            (digits(i16::from_le_bytes(*number).into()), rest)
        }
        (3, 2) => {
            let (number, rest) = rest.split_first_chunk()?;
            (digits(i32::from_le_bytes(*number)), rest)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Redis 7 begins one.
    fn redis_7(base: u8) -> Vec<u8> {
        let mut bytes = b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0\x40".to_vec();
        bytes.extend(b"\xfa\x05ctime\xc2\x80\x3b\xc6\x65\xfa\x08used-mem\xc2\x00\x10\x0e\x00");
        bytes.extend(
            [&b"\xfa\x08aof-base\xc0"[..], &[base], b"\xfe\x00\xfb\x01\x00\x00\x01a\x01b\xff"].concat(),
        );
        bytes
    }

    #[test]
    fn an_rdb_tells_when_it_was_made_and_whether_append_only_files_go_on() {
        let made = Some(0x65c6_3b80);
        assert_eq!(head(&redis_7(0)), Some(Head { made, is_base: false }));
        assert_eq!(head(&redis_7(1)), Some(Head { made, is_base: true }));
        let preamble = b"REDIS0009\xfa\x05ctime\x0a1707489152\xfa\x0caof-preamble\xc0\x01REDIS";
        assert_eq!(head(preamble), Some(Head { made: Some(1_707_489_152), is_base: true }));
        let plain = Some(Head::default());
        assert_eq!(head(b"REDIS0006\xfe\x00\x00\x01a\x01b\xff"), plain);
        assert_eq!(head(b"VALKEY080\xfe\x00\x00\x01a\x01b\xff"), plain);
        for none in [&b"*3\r\n$3\r\nSET\r\n"[..], b"", b"REDI", b"VALKE"] {
            assert_eq!(head(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_ends_anywhere_or_is_odd_is_still_read_as_far_as_it_goes() {
        let whole = redis_7(1);
        for length in 5..whole.len() {
            let found = head(&whole[..length]).unwrap();
            assert!(found.made.is_none() || found.made == Some(0x65c6_3b80), "{length}: {found:?}");
        }
        for odd in [
            &b"REDIS0010\xfa\x81\0\0\0\0\0\0\0\x05ctime"[..],
            b"REDIS0010\xfa\xc3\x05\x05",
            b"REDIS0010\xfa\x7f\xff",
        ] {
            assert_eq!(head(odd), Some(Head::default()));
        }
    }
}
