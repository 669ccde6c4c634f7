//! What a store holds, for a catalogue that was lost. Nothing found here is trusted: the answer says what the
//! manifests claim; whether it is true only reading in full tells ([`super::verify`]).

use rustix::io::Errno;
use serde::Deserialize;

use super::{Folder, plain, sha256_of};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::manifest::{Manifest, SEALED, SEALED_SCHEMA};
use crate::task::{InnerHead, ManifestHead, Report, Scanned, StoreScan, StoredFound};

/// Root of the layout `v1/<stack>/<service>/<id>`.
pub const ROOT: &str = "v1";
/// Longest list of other services.
pub const MOST_OTHERS: usize = 64;
/// Longest name of a directory, and text of a manifest, that is passed on, in bytes.
pub const LONGEST: usize = 200;
/// Beside the backups of a service: what was received of its write-ahead log.
const LOG: &str = "wal";

/// Lists one page of the directories of a service.
pub(crate) fn scan(job: &Job, task: &StoreScan) -> Result<Report> {
    let mut scanned = Scanned::default();
    let mut dirs = Vec::new();
    for stack in names(job, ROOT)? {
        for service in names(job, &format!("{ROOT}/{stack}"))? {
            if service == task.service {
                let above = format!("{ROOT}/{stack}/{service}");
                let ids = names(job, &above)?.into_iter().filter(|name| name != LOG);
                dirs.extend(ids.map(|id| format!("{above}/{id}")));
            } else if scanned.others.len() < MOST_OTHERS {
                scanned.others.push(service);
            }
        }
    }
    scanned.more = page(&mut dirs, task);
    for (nth, dir) in (0..).zip(&dirs) {
        job.out.progress("scan", nth, Some(dirs.len() as u64));
        scanned.found.push(StoredFound { dir: dir.clone(), what: look(job, dir)? });
    }
    Ok(Report::StoreScan(scanned))
}

/// Leaves of a service's directories one page, in order; whether there are more.
pub fn page(dirs: &mut Vec<String>, task: &StoreScan) -> bool {
    dirs.sort();
    dirs.retain(|dir| task.after.as_ref().is_none_or(|after| dir > after));
    let most = task.most.max(1) as usize;
    let more = dirs.len() > most;
    dirs.truncate(most);
    more
}

/// Names in a directory, in order; none where it is no directory.
fn names(job: &Job, dir: &str) -> Result<Vec<String>> {
    let Some(folder) = open(job, dir)? else { return Ok(Vec::new()) };
    let mut names = folder.names()?;
    names.retain(|name| plain(name).is_ok() && name.len() <= LONGEST);
    names.sort();
    Ok(names)
}

/// A directory; none where there is something else, or a link.
fn open(job: &Job, dir: &str) -> Result<Option<Folder>> {
    match Folder::open(&job.store, dir) {
        Err(Error::Io { source, .. }) if is_no_directory(&source) => Ok(None),
        opened => opened,
    }
}

fn is_no_directory(error: &std::io::Error) -> bool {
    [Errno::NOTDIR, Errno::LOOP].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What a directory's manifest says, or why it holds no backup.
fn look(job: &Job, dir: &str) -> Result<std::result::Result<ManifestHead, String>> {
    let Some(folder) = open(job, dir)? else { return Ok(Err("it is no directory".to_owned())) };
    let bytes = match folder.manifest_bytes() {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Err("it has no manifest: a backup that was never finished".to_owned())),
        Err(Error::Refused(why)) => return Ok(Err(why)),
        Err(error) => return Err(error),
    };
    let id = dir.rsplit_once('/').map_or(dir, |(_, id)| id);
    Ok(head(id, &bytes))
}

/// What the manifest of these bytes claims, whose directory bears this id; or why that is no backup.
///
/// # Errors
/// A sentence for people.
pub fn head(id: &str, bytes: &[u8]) -> std::result::Result<ManifestHead, String> {
    /// A manifest of encoded files, as far as a catalogue needs it.
    #[derive(Deserialize)]
    struct Sealed {
        schema: u32,
        recipients: Vec<String>,
        files: Vec<File>,
        manifest_sha256: String,
        manifest: Manifest,
    }
    #[derive(Deserialize)]
    struct File {
        size: u64,
    }
    #[derive(Deserialize)]
    struct Kind {
        #[serde(default)]
        format: String,
    }
    let unread = |error: serde_json::Error| format!("its manifest cannot be read: {error}");
    let newer = || "it was written by a newer Skep".to_owned();
    let total = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
    let kind: Kind = serde_json::from_slice(bytes).map_err(unread)?;
    let (manifest, size, inner) = if kind.format == SEALED {
        let sealed: Sealed = serde_json::from_slice(bytes).map_err(unread)?;
        if sealed.schema > SEALED_SCHEMA {
            return Err(newer());
        }
        let encrypted = !sealed.recipients.is_empty();
        let inner = InnerHead { manifest_sha256: sealed.manifest_sha256, encrypted };
        (sealed.manifest, total(&mut sealed.files.iter().map(|f| f.size)), Some(inner))
    } else {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(unread)?;
        let size = total(&mut manifest.artefacts.iter().map(|a| a.size));
        (manifest, size, None)
    };
    if manifest.schema > crate::SCHEMA {
        return Err(newer());
    }
    if manifest.id != id {
        return Err(format!("its manifest is that of backup {}", clipped(&manifest.id)));
    }
    let first = manifest.artefacts.first().ok_or("its manifest names no file")?;
    let mut texts = vec![&manifest.service, &manifest.engine, &manifest.started, &first.file];
    texts.extend(inner.as_ref().map(|inner| &inner.manifest_sha256));
    if let Some(base) = &manifest.base {
        texts.extend([&base.dir, &base.system, &base.start, &base.end, &base.ended]);
    }
    if texts.iter().any(|text| text.len() > LONGEST) {
        return Err("its manifest is not one that Skep writes".to_owned());
    }
    Ok(ManifestHead {
        manifest_sha256: sha256_of(bytes),
        file: first.file.clone(),
        size,
        inner,
        id: manifest.id,
        service: manifest.service,
        engine: manifest.engine,
        started: manifest.started,
        base: manifest.base,
    })
}

fn clipped(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST.min(text.len()))]
}
