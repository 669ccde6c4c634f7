//! Directories of backups that people made by hand: files, and `MANIFEST.txt` with a line `file|size|sha256` for each.
//!
//! Invariants: nothing in such a directory is written, moved or linked; a dump is copied, so that a backup depends on no
//! file that somebody else looks after; a directory of which any file is missing, or is not what `MANIFEST.txt` says, is
//! refused as a whole.

use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use super::{Draft, Folder, Whole, components, emptied};
use super::{archive, gzip, rdb};
use crate::error::{Error, Result};
use crate::job::{Job, civil};
use crate::manifest::Artefact;
use crate::task::{
    ArchiveHead, FileForm, FoundDump, FoundFile, LayoutCopy, LayoutScan, LayoutScanned, OtherFile, Packed,
    Report,
};

/// Name of the list.
const LIST: &str = "MANIFEST.txt";
/// Largest list that is read, in bytes.
const LARGEST_LIST: u64 = 4 << 20;
/// Most dumps that are told.
const MOST_DUMPS: usize = 20;
/// Most other files that are told.
const MOST_OTHERS: usize = 50;
/// Bytes that the head of a dump fits in.
const HEAD: usize = 4096;

/// Reads every file of the list, and says what each is good for.
pub(crate) fn scan(job: &Job, task: &LayoutScan) -> Result<Report> {
    let LayoutScan { dir } = task;
    let mut scanned = LayoutScanned::default();
    for artefact in list(job, dir)? {
        let whole = whole(job, dir, &artefact)?;
        match understood(&whole, &artefact)? {
            Ok(_) if scanned.dumps.len().max(scanned.files.len()) >= MOST_DUMPS => {
                return Err(Error::refused(format!("{dir} has more than {MOST_DUMPS} dumps of one kind")));
            }
            Ok(Use::Dump(head)) => scanned.dumps.push(FoundDump { artefact, head }),
            Ok(Use::File(form, made)) => {
                let made = made.map_or_else(|| whole.modified(), civil);
                scanned.files.push(FoundFile { artefact, form, made });
            }
            Err(why) => {
                scanned.left += 1;
                if scanned.others.len() < MOST_OTHERS {
                    scanned.others.push(OtherFile { file: artefact.file, why: why.to_owned() });
                }
            }
        }
    }
    Ok(Report::LayoutScan(Box::new(scanned)))
}

/// Copies one file, which has to be what it was when it was listed.
pub(crate) fn copy(job: &Job, task: &LayoutCopy) -> Result<Report> {
    let LayoutCopy { from, artefact, into, name, packed } = task;
    let whole = whole(job, from, artefact)?;
    let folder = emptied(job, into)?;
    let mut draft = Draft::new(job, &folder, name.clone())?;
    match packed {
        Packed::Plain => draft.copy(&mut whole.reader())?,
        Packed::Gzip => gzip::unpack(whole.reader(), &mut draft)?,
    }
    whole.is_untouched()?;
    let copied = draft.publish()?;
    if *packed == Packed::Plain && copied.sha256 != artefact.sha256 {
        folder.remove(name)?;
        return Err(Error::refused(format!("{} was changed while it was copied", artefact.file)));
    }
    Ok(Report::LayoutCopy { artefact: copied })
}

/// The lines of the list.
fn list(job: &Job, dir: &str) -> Result<Vec<Artefact>> {
    let absent = || Error::refused(format!("there is no {dir}/{LIST} in the store"));
    let folder = Folder::open(&job.store, dir)?.ok_or_else(absent)?;
    let file = folder.read(LIST)?.ok_or_else(absent)?;
    let mut text = String::new();
    let read = file.take(LARGEST_LIST).read_to_string(&mut text);
    read.map_err(Error::io(format!("cannot read {dir}/{LIST}")))?;
    parsed(&text).map_err(|why| Error::refused(format!("{dir}/{LIST}: {why}")))
}

/// A line that begins with `=`, or has no `|`, is for people.
fn parsed(text: &str) -> std::result::Result<Vec<Artefact>, String> {
    let mut files: Vec<Artefact> = Vec::new();
    for (nth, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.starts_with('=') || line.starts_with('#') || !line.contains('|') {
            continue;
        }
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        if parts
            .iter()
            .all(|part| ["file", "size", "sha256", "checksum"].contains(&part.to_lowercase().as_str()))
        {
            continue;
        }
        let wrong = |what: &str| format!("line {nth}: want `file|size|sha256`, {what}");
        let [file, size, sha256] = parts.as_slice() else { return Err(wrong("with three parts")) };
        if components(file).is_err() {
            return Err(wrong("with a file below the directory"));
        }
        if files.iter().any(|known| known.file == *file) {
            return Err(format!("line {nth}: {file} stands there twice"));
        }
        let size = size.parse().map_err(|_| wrong("with the size in bytes"))?;
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("with 64 hexadecimal digits"));
        }
        files.push(Artefact { file: (*file).to_owned(), size, sha256: sha256.to_ascii_lowercase() });
    }
    if files.is_empty() {
        return Err("it names no file".to_owned());
    }
    Ok(files)
}

/// A file of the directory, read in full.
fn whole(job: &Job, dir: &str, artefact: &Artefact) -> Result<Whole> {
    let path = format!("{dir}/{}", artefact.file);
    let (above, name) = path.rsplit_once('/').expect("two parts were joined by one");
    let absent = || Error::refused(format!("{path} is missing"));
    let folder = Folder::open(&job.store, above)?.ok_or_else(absent)?;
    folder.whole(&Artefact { file: name.to_owned(), ..artefact.clone() }, job)
}

/// What can be restored of a file.
enum Use {
    /// A dump of PostgreSQL.
    Dump(ArchiveHead),
    /// A file of another engine, with the time that it tells of itself, in seconds since 1970.
    File(FileForm, Option<i64>),
}

/// What a file is good for, or why for nothing.
fn understood(whole: &Whole, artefact: &Artefact) -> Result<std::result::Result<Use, &'static str>> {
    let file = artefact.file.as_str();
    let mut bytes = vec![0; HEAD];
    let read = whole.file.read_at(&mut bytes, 0).map_err(Error::io(format!("cannot read {file}")))?;
    let head = &bytes[..read];
    let part = file.split('/').next().unwrap_or_default();
    Ok(match part {
        "redis" => rdb_in(file, head),
        "volumes" if is_tar(head) => Ok(Use::File(FileForm::Tar, None)),
        "volumes" if head.starts_with(&gzip::MAGIC) => Ok(Use::File(FileForm::TarGz, None)),
        "volumes" => Err("no archive of tar, nor one that gzip packed"),
        "configs" | "app" => Err("configuration: deploy it as you did before"),
        _ if file.ends_with(".sql") || file.ends_with(".sql.gz") => Err(
            "a script, which can lead psql to other databases: load it into a scratch server, and dump that with pg_dump -Fc",
        ),
        _ => archive::head(head).map(Use::Dump),
    })
}

/// An append-only file may begin with an RDB: taken for one, it would lose all that was written after it.
fn rdb_in(file: &str, head: &[u8]) -> std::result::Result<Use, &'static str> {
    match rdb::head(head) {
        Some(found) if !found.is_base && !file.ends_with(".aof") => Ok(Use::File(FileForm::Rdb, found.made)),
        _ => Err(
            "no RDB of its own: append-only files are of a server that runs on them; start one there, and take its RDB with redis-cli --rdb",
        ),
    }
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn lists_are_read_as_people_write_them() {
        let text = format!(
            "=== Backup 20240215 ===\ncreated by hand\nfile|size|sha256\n\npostgres/shop.dump|12|{SHA}\n redis/dump.rdb | 0 | {} \n",
            SHA.to_uppercase()
        );
        let files = parsed(&text).unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(
            (files[1].file.as_str(), files[1].size, files[1].sha256.as_str()),
            ("redis/dump.rdb", 0, SHA)
        );
    }

    #[test]
    fn append_only_files_are_no_rdb_also_where_they_begin_with_one() {
        let base = b"REDIS0011\xfa\x08aof-base\xc0\x01\xff";
        let plain = b"REDIS0011\xfa\x05ctime\xc0\x07\xff";
        assert!(matches!(rdb_in("redis/dump.rdb", plain), Ok(Use::File(FileForm::Rdb, Some(7)))));
        for (file, head) in [
            ("redis/appendonly.aof", &plain[..]),
            ("redis/appendonly.aof.1.base.rdb", base),
            ("redis/appendonly.aof.1.incr.aof", b"*1\r\n$4\r\nPING\r\n"),
        ] {
            assert!(rdb_in(file, head).is_err_and(|why| why.contains("append-only")), "{file}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_list_is_told_with_its_line() {
        for (text, said) in [
            ("".to_owned(), "names no file"),
            ("nothing here\n".to_owned(), "names no file"),
            (format!("a|1|{SHA}\nb|1\n"), "line 2: want `file|size|sha256`"),
            (format!("a|1|{SHA}|x\n"), "line 1: want"),
            (format!("../etc/passwd|1|{SHA}\n"), "below the directory"),
            (format!("/etc/passwd|1|{SHA}\n"), "below the directory"),
            (format!("a|many|{SHA}\n"), "size in bytes"),
            ("a|1|abc\n".to_owned(), "64 hexadecimal digits"),
            (format!("a|1|{SHA}\na|1|{SHA}\n"), "twice"),
        ] {
            let why = parsed(&text).unwrap_err();
            assert!(why.contains(said), "`{why}` does not tell `{said}`");
        }
    }
}
