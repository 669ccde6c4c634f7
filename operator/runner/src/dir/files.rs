//! File operations relative to open directories, which never follow a symbolic link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::stop;

/// Largest file of Skep's own that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Bytes on its file system; files with several names count once a name.
    pub(crate) size: u64,
    /// Entries below the top.
    pub(crate) entries: u64,
}

/// Names what was being done when an [`Errno`] came.
pub(crate) fn wrong(verb: &'static str, name: &OsStr) -> impl FnOnce(Errno) -> Error + use<> {
    let name = name.to_string_lossy().into_owned();
    move |error| Error::io(format!("cannot {verb} {name}"))(error.into())
}

/// A directory that is no symbolic link.
pub(crate) fn open_dir(at: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// A regular file, or what else opens without waiting.
pub(crate) fn open_file(at: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// What a name is, none where there is nothing.
pub(crate) fn look(at: impl AsFd, name: &OsStr) -> Result<Option<Stat>> {
    match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(wrong("look at", name)(error)),
    }
}

/// The kind of a file.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Names in a directory, sorted.
pub(crate) fn names(dir: impl AsFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).map_err(Error::errno("cannot list a directory"))? {
        let entry = entry.map_err(Error::errno("cannot list a directory"))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort();
    Ok(names)
}

/// Removes whatever bears a name, with all that is in it; absent is fine.
pub(crate) fn remove(at: impl AsFd, name: &OsStr) -> Result<()> {
    match rustix::fs::unlinkat(&at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(wrong("remove", name)(error)),
    }
    if stop::is_stopping() {
        return Err(Error::Stopped);
    }
    let dir = open_dir(&at, name).map_err(wrong("open", name))?;
    for inner in names(&dir)? {
        remove(&dir, &inner)?;
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR).map_err(wrong("remove", name))
}

/// Measures what bears a name; what vanishes meanwhile counts as nothing.
pub(crate) fn measure(at: impl AsFd, name: &OsStr) -> Result<Measure> {
    let Some(stat) = look(&at, name)? else { return Ok(Measure::default()) };
    let mut sum = Measure { size: stat.st_blocks as u64 * 512, entries: 1 };
    if kind(&stat) == FileType::Directory {
        let dir = match open_dir(&at, name) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(sum),
            Err(error) => return Err(wrong("open", name)(error)),
        };
        for inner in names(&dir)? {
            let Measure { size, entries } = measure(&dir, &inner)?;
            sum = Measure { size: sum.size + size, entries: sum.entries + entries };
        }
    }
    Ok(sum)
}

/// Writes a file of Skep's own in one step, durably.
pub(crate) fn write_json(dir: impl AsFd, name: &str, value: &impl Serialize) -> Result<()> {
    let part = format!("{name}.part");
    let wrong = |error| Error::io(format!("cannot write {name}"))(error);
    remove(&dir, OsStr::new(&part))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&dir, &part, flags, Mode::RUSR | Mode::WUSR).map_err(|e| wrong(e.into()))?;
    let mut file = File::from(fd);
    let text = serde_json::to_vec(value).expect("keys are strings");
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(wrong)?;
    rustix::fs::renameat(&dir, &part, &dir, name).map_err(|error| wrong(error.into()))?;
    sync(dir)
}

/// Reads a file of Skep's own, none where it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(dir: impl AsFd, name: &str) -> Result<Option<T>> {
    let fd = match open_file(dir, OsStr::new(name)) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(wrong("open", OsStr::new(name))(error)),
    };
    let mut text = Vec::new();
    let read = File::from(fd).take(LARGEST).read_to_end(&mut text);
    read.map_err(Error::io(format!("cannot read {name}")))?;
    let understood = serde_json::from_slice(&text);
    understood.map(Some).map_err(|error| Error::refused(format!("cannot understand {name}: {error}")))
}

/// Makes renames and removals in a directory durable, where its file system can.
pub(crate) fn sync(dir: impl AsFd) -> Result<()> {
    match rustix::fs::fsync(dir) {
        Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(Error::errno("cannot sync a directory")(error)),
    }
}

/// A name as text that tells every byte: what is neither printable ASCII nor UTF-8, and `%`, as `%xx`.
pub(crate) fn escaped(name: &OsStr) -> String {
    let plain = |c: char| c != '%' && c != char::REPLACEMENT_CHARACTER && !c.is_control();
    match name.to_str() {
        Some(text) if text.chars().all(plain) => text.to_owned(),
        _ => name
            .as_bytes()
            .iter()
            .map(|byte| match byte {
                b'%' | ..=b' ' | 0x7f.. => format!("%{byte:02X}"),
                byte => char::from(*byte).to_string(),
            })
            .collect(),
    }
}

/// The opposite of [`escaped`].
pub(crate) fn unescaped(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let byte = after.get(..2).filter(|_| *first == b'%');
        let byte = byte.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_as_text() {
        for name in [
            &b"plain.txt"[..],
            "sch\u{f6}n".as_bytes(),
            b"\xff\xfe",
            b"100%",
            b"%41",
            b"a\nb",
            b"\xef\xbf\xbd",
        ] {
            let name = OsStr::from_bytes(name);
            assert_eq!(unescaped(&escaped(name)), name, "{}", escaped(name));
        }
        assert_eq!(escaped(OsStr::new("sch\u{f6}n")), "sch\u{f6}n");
    }
}
