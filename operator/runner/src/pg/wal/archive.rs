//! What lies in the store of a server's write-ahead log.
//!
//! What lies there is not trusted further than recovery itself trusts it: each record of the log has a checksum and names
//! the one before it, and no registered checksum vouches for a segment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Serialize};

use super::Lsn;
use crate::error::{Error, Result};
use crate::job::{Job, micros};
use crate::store::{self, Folder};
use crate::task::{PgBase, Report, WalPrune};

/// Tells how far an era is whole.
pub(super) const RECEIVED: &str = "received.json";
/// Largest such file, in bytes.
const LARGEST: u64 = 4096;
/// What pg_receivewal calls the segment that it is at.
const PARTIAL: &str = ".partial";

/// How far an era is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Received {
    /// What was committed until then is in, RFC 3339 UTC by the server's clock.
    pub(super) until: String,
    /// The log is there up to here.
    pub(super) lsn: String,
}

/// The log of one cluster, as it was when it was looked at.
pub(super) struct Archive {
    /// Oldest first.
    eras: Vec<Era>,
    segment_size: u64,
}

struct Era {
    folder: Folder,
    names: Vec<String>,
    received: Option<Received>,
}

/// A stretch of the log without a gap.
pub(super) struct Stretch {
    /// Names of its segments in order; the last one may be partial.
    pub(super) segments: Vec<String>,
    /// It ends here at the latest.
    pub(super) end: Lsn,
    /// Name of the segment that would come next.
    pub(super) next: String,
}

// === impl Received ===

impl Received {
    /// Writes it in one step.
    pub(super) fn write(&self, job: &Job, folder: &Folder) -> Result<()> {
        let part = format!("{RECEIVED}.{}.part", job.session);
        folder.remove(&part)?;
        let mut file = folder.write_new(&part)?;
        let bytes = serde_json::to_vec(self).expect("it has string keys only");
        file.write_all(&bytes).map_err(Error::io(format!("cannot write {part}")))?;
        folder.publish(&file, &part, RECEIVED)
    }

    fn read(folder: &Folder) -> Result<Option<Received>> {
        let Some(file) = folder.read(RECEIVED)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(Error::io(format!("cannot read {RECEIVED}")))?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::refused(format!("cannot understand {RECEIVED}: {error}")))
    }

    fn moment(&self) -> Result<i64> {
        moment(&self.until)
    }
}

// === impl Archive ===

impl Archive {
    /// Looks at everything that was received of the cluster.
    pub(super) fn open(job: &Job, dir: &str, system: &str, segment_size: u64) -> Result<Archive> {
        if !(1 << 20..=1 << 30).contains(&segment_size) || !segment_size.is_power_of_two() {
            return Err(Error::refused(format!("{segment_size} is not the size of a segment")));
        }
        let mut eras = Vec::new();
        let top = format!("{dir}/{system}");
        let mut names = match Folder::open(&job.store, &top)? {
            Some(folder) => folder.names()?,
            None => Vec::new(),
        };
        names.sort();
        for name in names {
            let Some(folder) = Folder::open(&job.store, &format!("{top}/{name}"))? else { continue };
            let received = Received::read(&folder)?;
            let mut names = folder.names()?;
            names.sort();
            eras.push(Era { folder, names, received });
        }
        Ok(Archive { eras, segment_size })
    }

    /// The latest moment up to which something was received.
    pub(super) fn latest(&self) -> Result<Option<&Received>> {
        let mut latest: Option<(i64, &Received)> = None;
        for received in self.eras.iter().filter_map(|era| era.received.as_ref()) {
            let at = received.moment()?;
            if latest.is_none_or(|(known, _)| known < at) {
                latest = Some((at, received));
            }
        }
        Ok(latest.map(|(_, received)| received))
    }

    /// The position up to which the log has to be there so that nothing committed until `until` is missing; the nearest
    /// that is known.
    pub(super) fn enough_for(&self, until: i64) -> Result<Option<Lsn>> {
        let mut nearest: Option<(i64, &Received)> = None;
        for received in self.eras.iter().filter_map(|era| era.received.as_ref()) {
            let at = received.moment()?;
            if at >= until && nearest.is_none_or(|(known, _)| at < known) {
                nearest = Some((at, received));
            }
        }
        nearest.map(|(_, received)| Lsn::parse(&received.lsn)).transpose()
    }

    /// The stretch without a gap that begins with the segment of `start`.
    pub(super) fn from(&self, start: Lsn) -> Stretch {
        let mut by_number: BTreeMap<u64, Vec<(&str, bool)>> = BTreeMap::new();
        for name in self.eras.iter().flat_map(|era| &era.names) {
            let (plain, partial) = match name.strip_suffix(PARTIAL) {
                Some(plain) => (plain, true),
                None => (name.as_str(), false),
            };
            if let Some((_, number)) = self.number(plain) {
                by_number.entry(number).or_default().push((plain, partial));
            }
        }
        let first = start.0 / self.segment_size;
        let (mut segments, mut number, mut timeline) = (Vec::new(), first, 1);
        while let Some(found) = by_number.get(&number) {
            let newest = found.iter().map(|(name, _)| *name).max().expect("there is at least one");
            let whole = found.iter().filter(|(_, partial)| !partial).map(|(name, _)| *name).max();
            // A segment that a timeline ends in stays partial: the next timeline has it as a whole.
            segments.push(whole.unwrap_or(newest).to_owned());
            timeline = self.number(newest).map_or(timeline, |(timeline, _)| timeline);
            number += 1;
            if whole.is_none() {
                break;
            }
        }
        let next = self.name(timeline, number);
        Stretch { segments, end: Lsn(number * self.segment_size), next }
    }

    /// Names of everything that recovery may ask for.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .eras
            .iter()
            .flat_map(|era| &era.names)
            .filter_map(|name| {
                let plain = name.strip_suffix(PARTIAL).unwrap_or(name);
                (self.number(plain).is_some() || is_history(plain)).then(|| plain.to_owned())
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Opens the best file of a name: a whole one of the newest era, else the partial one that holds most.
    pub(super) fn read(&self, name: &str) -> Result<Option<File>> {
        for era in self.eras.iter().rev() {
            if let Some(file) = era.folder.read(name)? {
                let size = file.metadata().map_err(Error::io(format!("cannot look at {name}")))?.len();
                if !is_history(name) && size != self.segment_size {
                    return Err(Error::refused(format!("segment {name} has {size} bytes in the store")));
                }
                return Ok(Some(file));
            }
        }
        let mut best: Option<(u64, File)> = None;
        for era in &self.eras {
            if let Some(file) = era.folder.read(&format!("{name}{PARTIAL}"))? {
                let held = self.held(name, &file)?;
                if best.as_ref().is_none_or(|(known, _)| *known <= held) {
                    best = Some((held, file));
                }
            }
        }
        Ok(best.map(|(_, file)| file))
    }

    /// How far a partial segment is written: it is full of zeros from there on.
    fn held(&self, name: &str, file: &File) -> Result<u64> {
        let mut buffer = vec![0; 64 << 10];
        let (mut at, mut held) = (0, 0);
        while at < self.segment_size {
            let read = file.read_at(&mut buffer, at).map_err(Error::io(format!("cannot read {name}")))?;
            if read == 0 {
                break;
            }
            if let Some(last) = buffer[..read].iter().rposition(|byte| *byte != 0) {
                held = at + last as u64 + 1;
            }
            at += read as u64;
        }
        Ok(held)
    }

    /// Timeline and number of a segment by its name, none for other files.
    fn number(&self, name: &str) -> Option<(u32, u64)> {
        if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)) {
            return None;
        }
        let part = |range: std::ops::Range<usize>| u32::from_str_radix(&name[range], 16).ok();
        let each = (1 << 32) / self.segment_size;
        Some((part(0..8)?, u64::from(part(8..16)?) * each + u64::from(part(16..24)?)))
    }

    fn name(&self, timeline: u32, number: u64) -> String {
        let each = (1 << 32) / self.segment_size;
        format!("{timeline:08X}{:08X}{:08X}", number / each, number % each)
    }
}

/// Removes what no base backup needs; the oldest first, so that whatever ends this leaves no gap.
pub(crate) fn prune(job: &Job, task: &WalPrune) -> Result<Report> {
    let WalPrune { dir, keep } = task;
    if keep.is_empty() {
        return Err(Error::refused("no base backup tells what of the write-ahead log to keep"));
    }
    let Some(top) = Folder::open(&job.store, dir)? else { return Ok(Report::Done) };
    for system in top.names()? {
        let of_system: Vec<&PgBase> = keep.iter().filter(|base| base.system == system).collect();
        let segment_size = of_system.first().map_or(1 << 24, |base| base.segment_size);
        let archive = Archive::open(job, dir, &system, segment_size)?;
        let mut starts = Vec::new();
        for base in &of_system {
            starts.push(Lsn::parse(&base.start)?);
        }
        match starts.iter().min() {
            Some(oldest) => archive.remove_before(*oldest)?,
            None if archive.is_older_than(keep)? => archive.remove_all()?,
            // A cluster that was just made: its first base backup is still to come.
            None => continue,
        }
        archive.remove_empty(job, &format!("{dir}/{system}"))?;
    }
    Ok(Report::Done)
}

impl Archive {
    fn is_older_than(&self, bases: &[PgBase]) -> Result<bool> {
        let Some(latest) = self.latest()? else { return Ok(false) };
        let latest = latest.moment()?;
        for base in bases {
            if moment(&base.ended)? <= latest {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn remove_before(&self, oldest: Lsn) -> Result<()> {
        let oldest = oldest.0 / self.segment_size;
        for era in &self.eras {
            for name in &era.names {
                let plain = name.strip_suffix(PARTIAL).unwrap_or(name);
                if self.number(plain).is_some_and(|(_, number)| number < oldest) {
                    era.folder.remove(name)?;
                }
            }
        }
        Ok(())
    }

    fn remove_all(&self) -> Result<()> {
        for era in &self.eras {
            for name in &era.names {
                era.folder.remove(name)?;
            }
        }
        Ok(())
    }

    /// Removes eras in which nothing but the note of how far they were is left; never the newest, which is being written.
    fn remove_empty(&self, job: &Job, top: &str) -> Result<()> {
        let older = self.eras.len().saturating_sub(1);
        for era in &self.eras[..older] {
            if era.folder.names()?.iter().all(|name| name == RECEIVED) {
                store::discard(&job.store, era.folder.label(), false)?;
            }
        }
        if let [era] = self.eras.as_slice()
            && era.folder.names()?.is_empty()
        {
            store::discard(&job.store, era.folder.label(), false)?;
            store::discard(&job.store, top, false)?;
        }
        Ok(())
    }
}

fn is_history(name: &str) -> bool {
    name.strip_suffix(".history")
        .is_some_and(|timeline| timeline.len() == 8 && timeline.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Microseconds since 1970.
pub(super) fn moment(text: &str) -> Result<i64> {
    micros(text)
        .ok_or_else(|| Error::refused(format!("`{text}` is not a time in UTC, such as 2026-05-01T14:03:00Z")))
}
