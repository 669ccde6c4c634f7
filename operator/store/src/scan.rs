//! What a bucket holds, for a catalogue that was lost; as the runner tells it of a mounted store. Nothing is trusted yet:
//! what manifests claim is held against the files by [`crate::check`].

use std::collections::BTreeSet;

use skep_runner::error::Result;
use skep_runner::manifest::MANIFEST;
use skep_runner::output::Output;
use skep_runner::store::{LONGEST, MOST_OTHERS, ROOT, head, page};
use skep_runner::task::{S3Place, Scanned, StoreScan, StoredFound};

use crate::shelf::Site;

/// Lists one page of what a bucket has of a service.
///
/// # Errors
/// When the server does not answer, or refuses.
pub fn scan(from: &S3Place, task: &StoreScan, site: &Site, out: &Output) -> Result<Scanned> {
    let mut bucket = site.bucket(from)?;
    let (mut dirs, mut others) = (BTreeSet::new(), BTreeSet::new());
    for name in bucket.names(ROOT)? {
        let parts: Vec<&str> = name.split('/').collect();
        let [stack, service, id, _, ..] = parts.as_slice() else { continue };
        if parts.iter().any(|part| part.is_empty() || part.len() > LONGEST) {
            continue;
        }
        if *service == task.service {
            dirs.insert(format!("{ROOT}/{stack}/{service}/{id}"));
        } else if others.len() < MOST_OTHERS {
            others.insert((*service).to_owned());
        }
    }
    let mut dirs: Vec<String> = dirs.into_iter().collect();
    let mut scanned =
        Scanned { more: page(&mut dirs, task), others: others.into_iter().collect(), ..Scanned::default() };
    for (nth, dir) in (0..).zip(&dirs) {
        out.progress("scan", nth, Some(dirs.len() as u64));
        let id = dir.rsplit_once('/').map_or(dir.as_str(), |(_, id)| id);
        let what = match bucket.get(&format!("{dir}/{MANIFEST}"))? {
            Some(bytes) => head(id, &bytes),
            None => Err("it has no manifest: a backup that was never finished".to_owned()),
        };
        scanned.found.push(StoredFound { dir: dir.clone(), what });
    }
    Ok(scanned)
}
