//! Reading of gzip: members one after the other, each with its checksum and its size.

use std::io::{Read, Write};

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use crate::error::{Error, Result};
use crate::stop;

/// Bytes read, and written, at once.
const CHUNK: usize = 64 << 10;
/// How a member begins: two magic bytes, and the only method.
pub(super) const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Flags of a header, for what follows it.
const CHECKED: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const UNKNOWN: u8 = 0xe0;

/// Bytes that were read, and not taken yet.
struct Input<R> {
    from: R,
    bytes: Vec<u8>,
    at: usize,
}

/// Writes what a file holds that gzip wrote; refuses one that is cut short or damaged.
pub(super) fn unpack(from: impl Read, to: &mut impl Write) -> Result<()> {
    let mut input = Input { from, bytes: Vec::new(), at: 0 };
    member(&mut input, to)?;
    while !input.is_over()? {
        // Some programs fill the last block with zeros.
        if input.bytes[input.at] == 0 {
            input.at += 1;
            continue;
        }
        member(&mut input, to)?;
    }
    Ok(())
}

fn member(input: &mut Input<impl Read>, to: &mut impl Write) -> Result<()> {
    header(input)?;
    let mut state = InflateState::new_boxed(DataFormat::Raw);
    let mut buffer = vec![0; CHUNK];
    let (mut sum, mut size) = (!0u32, 0u32);
    loop {
        if stop::is_stopping() {
            return Err(Error::Stopped);
        }
        if input.is_over()? {
            return Err(cut_short());
        }
        let done = inflate(&mut state, &input.bytes[input.at..], &mut buffer, MZFlush::None);
        input.at += done.bytes_consumed;
        let bytes = &buffer[..done.bytes_written];
        sum = bytes.iter().fold(sum, |sum, byte| summed(sum, *byte));
        size = size.wrapping_add(done.bytes_written as u32);
        to.write_all(bytes).map_err(Error::io("cannot write what was unpacked"))?;
        match done.status {
            Ok(MZStatus::StreamEnd) => break,
            Ok(_) | Err(MZError::Buf) if done.bytes_consumed + done.bytes_written > 0 => {}
            _ => return Err(damaged()),
        }
    }
    if (input.number()?, input.number()?) == (!sum, size) { Ok(()) } else { Err(damaged()) }
}

fn header(input: &mut Input<impl Read>) -> Result<()> {
    for expected in MAGIC {
        if input.byte()? != expected {
            return Err(damaged());
        }
    }
    let flags = input.byte()?;
    if flags & UNKNOWN != 0 {
        return Err(damaged());
    }
    // Its time, how hard it was tried, and where.
    input.skip(6)?;
    if flags & EXTRA != 0 {
        let length = u16::from_le_bytes([input.byte()?, input.byte()?]);
        input.skip(usize::from(length))?;
    }
    for text in [NAME, COMMENT] {
        while flags & text != 0 && input.byte()? != 0 {}
    }
    input.skip(if flags & CHECKED != 0 { 2 } else { 0 })
}

/// One step of CRC-32 as gzip has it.
fn summed(sum: u32, byte: u8) -> u32 {
    const TABLE: [u32; 256] = table();
    TABLE[((sum ^ u32::from(byte)) & 0xff) as usize] ^ (sum >> 8)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let (mut sum, mut bit) = (at as u32, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
    }
    table
}

fn damaged() -> Error {
    Error::refused("what gzip wrote is damaged")
}

fn cut_short() -> Error {
    Error::refused("what gzip wrote is cut short")
}

// === impl Input ===

impl<R: Read> Input<R> {
    /// Whether there is nothing more.
    fn is_over(&mut self) -> Result<bool> {
        if self.at < self.bytes.len() {
            return Ok(false);
        }
        self.bytes.resize(CHUNK, 0);
        let read = self.from.read(&mut self.bytes).map_err(Error::io("cannot read what gzip wrote"))?;
        self.bytes.truncate(read);
        self.at = 0;
        Ok(read == 0)
    }

    fn byte(&mut self) -> Result<u8> {
        if self.is_over()? {
            return Err(cut_short());
        }
        self.at += 1;
        Ok(self.bytes[self.at - 1])
    }

    fn number(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes([self.byte()?, self.byte()?, self.byte()?, self.byte()?]))
    }

    fn skip(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.byte()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec;
    use miniz_oxide::inflate::decompress_to_vec;

    use super::*;

    fn packed(data: &[u8], flags: u8, more: &[u8]) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[flags], &[0; 6], more].concat();
        bytes.extend(compress_to_vec(data, 6));
        let sum = !data.iter().fold(!0, |sum, byte| summed(sum, *byte));
        bytes.extend(sum.to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        unpack(bytes, &mut found).map(|()| found)
    }

    fn data() -> Vec<u8> {
        (0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn the_sum_is_that_of_gzip() {
        assert_eq!(!b"123456789".iter().fold(!0, |sum, byte| summed(sum, *byte)), 0xcbf4_3926);
    }

    #[test]
    fn what_was_packed_comes_out_whatever_its_header_holds() {
        for data in [Vec::new(), b"one".to_vec(), data()] {
            assert_eq!(unpacked(&packed(&data, 0, b"")).unwrap(), data);
        }
        let more = [&[2u8, 0][..], b"xy", b"name\0", b"comment\0", b"hc"].concat();
        assert_eq!(unpacked(&packed(b"one", EXTRA | NAME | COMMENT | CHECKED, &more)).unwrap(), b"one");
        let two = [packed(b"one", 0, b""), packed(b"two", 0, b""), vec![0; 700]].concat();
        assert_eq!(unpacked(&two).unwrap(), b"onetwo");
    }

    #[test]
    fn what_tar_and_gzip_wrote_is_read() {
        let dir = std::env::temp_dir().join(format!("skep-gzip-{}", std::process::id()));
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(95));
        std::fs::create_dir_all(dir.join(&long).parent().unwrap()).unwrap();
        std::fs::write(dir.join(&long), data()).unwrap();
        std::fs::hard_link(dir.join(&long), dir.join("hard")).unwrap();
        std::os::unix::fs::symlink("hard", dir.join("soft")).unwrap();
        for format in ["gnu", "posix", "ustar"] {
            let tar = std::process::Command::new("tar")
                .args([&format!("--format={format}"), "-czf", "-", "-C", dir.to_str().unwrap(), "."])
                .output()
                .unwrap();
            assert!(tar.status.success(), "{tar:?}");
            let unpacked = unpacked(&tar.stdout).unwrap();
            let mut archive = crate::tar::Archive::new(unpacked.as_slice());
            let mut found = Vec::new();
            while let Some(entry) = archive.next().unwrap() {
                found.push(entry.label());
            }
            found.sort();
            assert_eq!(found, [".", &"d".repeat(90), &long, "hard", "soft"], "{format}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Bits of the last byte of a stream of one block that stand for anything: another block put right behind them is read,
    /// and nowhere else.
    fn bits_used(stream: &[u8], data: &[u8]) -> u32 {
        const FINAL: u8 = 1;
        // A last block of the fixed code with nothing in it: its three bits, and the code of the end, which is zeros.
        const EMPTY: u16 = 0b011;
        assert_eq!(stream[0] & FINAL, FINAL, "it has one block");
        let is_end = |used: &u32| {
            let mut longer = stream.to_vec();
            longer[0] &= !FINAL;
            let last = longer.pop().unwrap();
            let kept = u32::from(last) & ((1 << used) - 1);
            longer.extend_from_slice(&(kept | u32::from(EMPTY) << used).to_le_bytes());
            decompress_to_vec(&longer).is_ok_and(|found| found == data)
        };
        let ends: Vec<u32> = (1..=8).filter(is_end).collect();
        let [used] = ends[..] else { panic!("it ends at any of {ends:?}") };
        used
    }

    #[test]
    fn what_is_cut_short_or_damaged_anywhere_is_refused() {
        const HEADER: usize = 12;
        // Without the run of zeros at its beginning: there one distance back is as good as another.
        for data in [&data()[28..5028], b"a"] {
            let whole = packed(data, NAME, b"n\0");
            for length in 0..whole.len() {
                assert!(unpacked(&whole[..length]).is_err(), "{length} of {}", whole.len());
            }
            let last = whole.len() - 9;
            let used = bits_used(&whole[HEADER..=last], data);
            for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                // Whether it is text, the time, how hard it was tried, where, and its name; and what fills the last byte.
                let is_idle = (at, bit) == (3, 0) || (4..=10).contains(&at) || at == last && bit >= used;
                let found = unpacked(&bytes);
                assert_eq!(found.is_ok(), is_idle, "bit {bit} of byte {at}");
                assert!(found.is_err() || found.unwrap() == data, "bit {bit} of byte {at}");
            }
            assert!(unpacked(&[whole, b"more".to_vec()].concat()).is_err());
        }
    }
}
