//! The backup catalogue: one config per backup. Raft is the trust anchor: nothing is fed to a restore tool unless
//! its manifest's checksum is the one registered here.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use skep_runner::task::{PgBase, Stored, Verdict};

use super::record::{OpId, SERVICE, SERVICE_ID};
use super::saga::{Cx, Fault};
use super::stores::Inner;
use crate::engines::{By, Data, DirectoryEngine};
use crate::swarm::error::Error;
use crate::swarm::object::{Config, KIND, Kind, Labels, OP};

/// As many backups as a restore tries (S9).
pub const MOST_CANDIDATES: usize = 3;
/// Prefix of the names of backup configs.
pub const PREFIX: &str = "skep-backup-";
const VERIFIED: &str = "skep.verified";
const PROVED: &str = "skep.proved";
const LOADED: &str = "skep.loaded";
const SECONDS: &str = "skep.restore-seconds";
const DRILL_FAILED: &str = "skep.drill-failed";
/// Longest reason that a label tells, in bytes.
const LONGEST_REASON: usize = 300;
const REMOVING: &str = "skep.removing";
const SPOILT: &str = "skep.spoilt";
const TAKEN: &str = "skep.taken";
const COPIES: &str = "skep.copies";
/// Version 2 has backups whose files are encoded; others are written as version 1, which older ones can read.
const VERSION: u32 = 2;

/// A registered backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Config id.
    pub config: String,
    /// Config version.
    pub version: u64,
    /// What never changes.
    pub entry: Entry,
    /// When it was last read back in full and found whole.
    pub verified: Option<Timestamp>,
    /// When what a drill or a restore made of it last passed the checks.
    pub proved: Option<Timestamp>,
    /// When it was last loaded in full where there was no check that could have proved anything.
    pub loaded: Option<Timestamp>,
    /// How many seconds loading it took when it last was.
    pub restore_seconds: Option<f64>,
    /// When and why a drill of it last failed, if none has succeeded since.
    pub drill_failed: Option<Finding>,
    /// Since when it is being removed: some of its files may be gone, so nothing restores it any more.
    pub removing: Option<Timestamp>,
    /// What was wrong when it was last read back. Such a one is neither verified nor proved, whatever it was before.
    pub spoilt: Option<Finding>,
    /// Names of the stores that have a copy.
    pub copies: Vec<String>,
}

/// What was found against a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// When.
    pub at: Timestamp,
    /// What, for people.
    pub why: String,
}

/// The immutable part of a registered backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Format version.
    pub schema: u32,
    /// Id; that of the operation which made it, with a suffix for a safety backup.
    pub id: String,
    /// The operation that made it.
    pub operation: OpId,
    /// Full name of the service.
    pub service: String,
    /// Id of the service.
    pub service_id: String,
    /// Engine name as in `skep.data`.
    pub engine: String,
    /// Database.
    pub database: String,
    /// Name of the store.
    pub store: String,
    /// Directory inside the store.
    pub dir: String,
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// Bytes of all artefacts.
    pub size: u64,
    /// The data is that of this moment.
    pub taken: Timestamp,
    /// Why it was made.
    pub purpose: Purpose,
    /// Id of the node that has its files, where the store is one of each node's own, or that wrote them, where it is a
    /// directory of the host; entries from before this was noted name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How it came into the catalogue.
    #[serde(default, skip_serializing_if = "Origin::is_made")]
    pub origin: Origin,
    /// What is inside, where the files in the store are encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<Inner>,
    /// The base backup besides, from which moments can be recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PgBase>,
}

/// What loading a backup has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// That it loads. Nothing has looked at what its data is.
    Loads,
    /// That its data passes the checks.
    Proved,
}

/// How a backup came into the catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The operation that registered it made it: the checksum is that of what was written.
    #[default]
    Made,
    /// It was found in a store: the checksum is that of what was found, and nothing vouches for what it was before.
    Imported,
}

/// Why a backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Asked for or scheduled.
    Regular,
    /// Taken by a restore of what it was about to replace; never chosen by itself (its data may be what was wrong).
    Safety,
}

// === impl Backup ===

impl Backup {
    /// Reads a catalogue entry; none where it is not one that this version can read.
    pub fn read(config: &Config) -> Option<Backup> {
        let entry: Entry = serde_json::from_slice(&config.data).ok()?;
        let time = |key: &str| config.labels.get(key).and_then(|t| t.parse().ok());
        let spoilt = config.labels.get(SPOILT).map(|text| Finding::read(text));
        let is_good = spoilt.is_none();
        let good = |key: &str| time(key).filter(|_| is_good);
        (entry.schema <= VERSION).then(|| Backup {
            config: config.id.clone(),
            version: config.version,
            verified: good(VERIFIED),
            proved: good(PROVED),
            loaded: good(LOADED),
            restore_seconds: config.labels.get(SECONDS).and_then(|t| t.parse().ok()),
            drill_failed: config.labels.get(DRILL_FAILED).map(|text| Finding::read(text)),
            removing: time(REMOVING),
            spoilt,
            copies: copies_of(&config.labels),
            entry,
        })
    }

    /// As jobs know it.
    pub fn stored(&self) -> Stored {
        self.entry.stored()
    }

    /// When it was last tried whether it restores, whatever came of it.
    pub fn drilled(&self) -> impl Iterator<Item = Timestamp> {
        self.proved.into_iter().chain(self.loaded).chain(self.drill_failed.as_ref().map(|failed| failed.at))
    }
}

// === impl Finding ===

impl Finding {
    /// Reads a label. One that is not as this version writes it still says that something was found.
    fn read(text: &str) -> Finding {
        let parts = text.split_once(' ').and_then(|(at, why)| Some((at.parse().ok()?, why)));
        let (at, why) = parts.unwrap_or((Timestamp::UNIX_EPOCH, text));
        Finding { at, why: why.to_owned() }
    }
}

impl fmt::Display for Finding {
    /// As the label has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.why.floor_char_boundary(LONGEST_REASON.min(self.why.len()));
        write!(f, "{} {}", self.at, &self.why[..end])
    }
}

// === impl Shown ===

impl Shown {
    /// What it shows that data of this kind was loaded and has passed so many checks.
    ///
    /// Loading files compares every one of them with the archive, and loading definitions every one of those with the
    /// backup; more than that nobody can ask of them.
    pub fn of(data: &Data, checks: usize) -> Shown {
        let is_compared = match data {
            Data::Directory(directory) => directory.engine == DirectoryEngine::Volume,
            Data::Command(data) => data.by == By::Rabbitmq,
            Data::None | Data::Postgres => false,
        };
        if checks > 0 || is_compared { Shown::Proved } else { Shown::Loads }
    }

    /// As [`Shown::of`], where a drill loaded it: of a MongoDB it compares every document, which a restore only counts.
    pub fn of_drill(data: &Data, checks: usize) -> Shown {
        match data {
            Data::Command(data) if data.by == By::Mongodb => Shown::Proved,
            other => Shown::of(other, checks),
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Shown::Loads => LOADED,
            Shown::Proved => PROVED,
        }
    }
}

// === impl Origin ===

impl Origin {
    fn is_made(&self) -> bool {
        *self == Origin::Made
    }
}

// === impl Entry ===

impl Entry {
    /// The format version that an entry needs.
    pub const fn version(inner: Option<&Inner>) -> u32 {
        if inner.is_some() { VERSION } else { 1 }
    }

    /// Name of its config.
    pub fn config_name(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// Labels of a backup that has just been verified.
    pub fn labels(&self, verified: Timestamp) -> Labels {
        Labels::from([
            (KIND.to_owned(), Kind::Backup.as_str().to_owned()),
            (OP.to_owned(), self.operation.to_string()),
            (SERVICE.to_owned(), self.service.clone()),
            (SERVICE_ID.to_owned(), self.service_id.clone()),
            (TAKEN.to_owned(), self.taken.to_string()),
            (VERIFIED.to_owned(), verified.to_string()),
        ])
    }

    /// As jobs of the database know it, which see what is inside.
    pub fn stored(&self) -> Stored {
        let sha256 = self.inner.as_ref().map_or(&self.manifest_sha256, |inner| &inner.manifest_sha256);
        Stored { id: self.id.clone(), dir: self.dir.clone(), manifest_sha256: sha256.clone() }
    }
}

/// Notes what a restore of a backup has just shown, and how long loading it took. A backup that is gone, or that somebody
/// else writes at this moment, is left alone: the note is a courtesy.
///
/// # Errors
/// What the engine says.
pub async fn mark_shown(cx: &Cx<'_>, id: &str, shown: Shown, seconds: Option<f64>) -> Result<(), Fault> {
    match note_shown(cx, id, shown, seconds).await {
        Err(Fault::Swarm(Error::Stale { .. })) => Ok(()),
        other => other,
    }
}

/// As [`mark_shown`], where the note is what the work was for. A backup that is gone is left alone.
///
/// # Errors
/// `Stale` where somebody else has just written it; otherwise what the engine says.
pub async fn note_shown(cx: &Cx<'_>, id: &str, shown: Shown, seconds: Option<f64>) -> Result<(), Fault> {
    let now = cx.now();
    relabel(cx, id, |labels| {
        labels.insert(shown.label().to_owned(), now.to_string());
        labels.remove(DRILL_FAILED);
        if let Some(seconds) = seconds {
            labels.insert(SECONDS.to_owned(), format!("{seconds:.3}"));
        }
    })
    .await
}

/// Notes that a drill has just shown that a backup does not restore to what passes the checks. What proved it before
/// stays on record. A backup that is gone is left alone.
///
/// # Errors
/// `Stale` where somebody else has just written it; otherwise what the engine says.
pub async fn note_drill_failed(cx: &Cx<'_>, id: &str, why: &str) -> Result<(), Fault> {
    let finding = Finding { at: cx.now(), why: why.to_owned() };
    relabel(cx, id, |labels| {
        labels.insert(DRILL_FAILED.to_owned(), finding.to_string());
    })
    .await
}

async fn relabel(cx: &Cx<'_>, id: &str, change: impl FnOnce(&mut Labels)) -> Result<(), Fault> {
    let config = match cx.engine().config(&format!("{PREFIX}{id}")).await {
        Ok(config) => config,
        Err(Error::NotFound { .. }) => return Ok(()),
        Err(other) => return Err(other.into()),
    };
    let mut labels = config.labels.clone();
    change(&mut labels);
    match cx.engine().relabel_config(&config.id, config.version, &config.name, &labels).await {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Notes how a backup was found that has just been read in full. Answers whether it was noted: a backup that is gone, is
/// being removed, or is no longer the one that was read, is left alone.
///
/// # Errors
/// What the engine says.
pub async fn note(cx: &Cx<'_>, read: &Entry, verdict: &Verdict) -> Result<bool, Fault> {
    let config = match cx.engine().config(&read.config_name()).await {
        Ok(config) => config,
        Err(Error::NotFound { .. }) => return Ok(false),
        Err(other) => return Err(other.into()),
    };
    let is_it = |b: &Backup| b.entry.manifest_sha256 == read.manifest_sha256 && b.removing.is_none();
    if !Backup::read(&config).is_some_and(|b| is_it(&b)) {
        return Ok(false);
    }
    let mut labels = config.labels.clone();
    match verdict {
        Verdict::Whole { .. } => {
            labels.insert(VERIFIED.to_owned(), cx.now().to_string());
            labels.remove(SPOILT);
        }
        Verdict::Spoilt { why } => {
            labels.insert(SPOILT.to_owned(), Finding { at: cx.now(), why: why.clone() }.to_string());
            for good in [VERIFIED, PROVED, LOADED] {
                labels.remove(good);
            }
        }
    }
    cx.engine().relabel_config(&config.id, config.version, &config.name, &labels).await?;
    Ok(true)
}

/// A registered backup by its id; none where it is gone or cannot be read.
///
/// # Errors
/// What the engine says.
pub async fn find(cx: &Cx<'_>, id: &str) -> Result<Option<Backup>, Fault> {
    match cx.engine().config(&format!("{PREFIX}{id}")).await {
        Ok(config) => Ok(Backup::read(&config)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// Notes that a store has a copy of a backup, or has none any more. `Stale` where somebody else has just written it; one
/// that is gone needs no note.
///
/// # Errors
/// What the engine says.
pub async fn mark_copy(cx: &Cx<'_>, id: &str, store: &str, is_there: bool) -> Result<(), Fault> {
    relabel(cx, id, |labels| {
        let mut copies = copies_of(labels);
        copies.retain(|c| c != store);
        copies.extend(is_there.then(|| store.to_owned()));
        labels.insert(COPIES.to_owned(), copies.join(","));
    })
    .await
}

fn copies_of(labels: &Labels) -> Vec<String> {
    let text = labels.get(COPIES).map(String::as_str).unwrap_or_default();
    text.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect()
}

/// Says of a backup that its files are about to go. `Stale` where somebody else has just written it.
///
/// # Errors
/// What the engine says.
pub async fn mark_removing(cx: &Cx<'_>, config: &Config) -> Result<(), Error> {
    let mut labels = config.labels.clone();
    labels.insert(REMOVING.to_owned(), cx.now().to_string());
    cx.engine().relabel_config(&config.id, config.version, &config.name, &labels).await
}

/// The backups that a restore may use, best first (S9): verified, regular, neither spoilt nor being removed, of this service and engine, taken
/// at or before `until`; or the one asked for by id, whatever its purpose. One whose drill failed comes after all others.
/// A restore tries [`MOST_CANDIDATES`] of them.
pub fn candidates<'a>(
    backups: impl IntoIterator<Item = &'a Backup>,
    service: &str,
    wanted: Option<&str>,
    until: Timestamp,
) -> Vec<&'a Backup> {
    let mut fit: Vec<&Backup> = backups
        .into_iter()
        .filter(|b| b.entry.service == service && b.removing.is_none() && b.spoilt.is_none())
        .filter(|b| match wanted {
            Some(id) => b.entry.id == id,
            None => b.verified.is_some() && b.entry.purpose == Purpose::Regular && b.entry.taken <= until,
        })
        .collect();
    fit.sort_by_key(|b| (b.drill_failed.is_some(), std::cmp::Reverse(b.entry.taken)));
    fit
}

/// The backups that a drill may try, of which it tries the first: those that a restore may use, the newest first, whatever
/// became of them in earlier drills; or the one asked for by id.
pub fn to_drill<'a>(
    backups: impl IntoIterator<Item = &'a Backup>,
    service: &str,
    wanted: Option<&str>,
    until: Timestamp,
) -> Vec<&'a Backup> {
    let mut fit = candidates(backups, service, wanted, until);
    fit.sort_by_key(|b| std::cmp::Reverse(b.entry.taken));
    fit
}

/// Why the backup asked for by id is not among the candidates, for people.
pub fn unusable<'a>(backups: impl IntoIterator<Item = &'a Backup>, service: &str, id: &str) -> String {
    let found = backups.into_iter().find(|b| b.entry.service == service && b.entry.id == id);
    match found.map(|b| (&b.spoilt, b.removing)) {
        Some((Some(Finding { why, .. }), _)) => format!("backup `{id}` of {service} is spoilt: {why}"),
        Some((None, Some(_))) => format!("backup `{id}` of {service} is being removed"),
        _ => format!("there is no backup `{id}` of {service}"),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A backup of `shop_db`.
    pub(crate) fn backup(id: &str, taken: &str, purpose: Purpose, verified: bool) -> Backup {
        let taken: Timestamp = taken.parse().unwrap();
        Backup {
            config: id.to_owned(),
            version: 1,
            verified: verified.then_some(taken),
            proved: None,
            loaded: None,
            restore_seconds: None,
            drill_failed: None,
            removing: None,
            spoilt: None,
            copies: Vec::new(),
            entry: Entry {
                schema: 1,
                id: id.to_owned(),
                operation: OpId::new(taken, id),
                service: "shop_db".to_owned(),
                service_id: "s".to_owned(),
                engine: "postgres".to_owned(),
                database: "shop".to_owned(),
                store: "default".to_owned(),
                dir: String::new(),
                manifest_sha256: String::new(),
                size: 0,
                taken,
                purpose,
                node: None,
                origin: Origin::Made,
                inner: None,
                base: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::backup;
    use super::*;

    #[test]
    fn the_newest_verified_regular_backup_before_the_trouble_comes_first() {
        let all = [
            backup("old", "2026-01-01T00:00:00Z", Purpose::Regular, true),
            backup("good", "2026-01-02T00:00:00Z", Purpose::Regular, true),
            backup("unverified", "2026-01-03T00:00:00Z", Purpose::Regular, false),
            backup("safety", "2026-01-03T01:00:00Z", Purpose::Safety, true),
            backup("late", "2026-01-05T00:00:00Z", Purpose::Regular, true),
            Backup {
                removing: Some(Timestamp::UNIX_EPOCH),
                ..backup("going", "2026-01-02T12:00:00Z", Purpose::Regular, true)
            },
            Backup {
                spoilt: Some(Finding::read("2026-01-03T00:00:00Z a file is missing")),
                ..backup("spoilt", "2026-01-02T13:00:00Z", Purpose::Regular, true)
            },
        ];
        let until = "2026-01-04T00:00:00Z".parse().unwrap();
        let ids = |found: Vec<&Backup>| found.iter().map(|b| b.entry.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(candidates(&all, "shop_db", None, until)), ["good", "old"]);
        assert_eq!(ids(candidates(&all, "shop_db", Some("safety"), until)), ["safety"]);
        assert_eq!(ids(candidates(&all, "shop_db", Some("going"), until)), [] as [String; 0]);
        assert_eq!(ids(candidates(&all, "shop_db", Some("spoilt"), until)), [] as [String; 0]);
        assert_eq!(ids(candidates(&all, "other_db", None, until)), [] as [String; 0]);
    }

    #[test]
    fn of_a_mongodb_a_drill_compares_every_document_and_a_restore_only_counts_them() {
        let data = |by: By| Data::Command(crate::engines::Commands { by, mounts: Vec::new() });
        let mongodb = data(By::Mongodb);
        assert_eq!((Shown::of(&mongodb, 0), Shown::of_drill(&mongodb, 0)), (Shown::Loads, Shown::Proved));
        let broker = data(By::Rabbitmq);
        assert_eq!((Shown::of(&broker, 0), Shown::of_drill(&broker, 0)), (Shown::Proved, Shown::Proved));
        assert_eq!(Shown::of_drill(&Data::Postgres, 0), Shown::Loads);
    }

    fn config(entry: &Entry) -> Config {
        Config {
            id: "c".to_owned(),
            name: entry.config_name(),
            version: 1,
            created: entry.taken,
            updated: entry.taken,
            labels: entry.labels(entry.taken),
            data: serde_json::to_vec(entry).unwrap(),
        }
    }

    #[test]
    fn s9_a_backup_whose_drill_failed_comes_after_all_others() {
        let failed = |b: Backup| Backup {
            drill_failed: Some(Finding { at: b.entry.taken, why: "check `users`: 0".to_owned() }),
            ..b
        };
        let all = [
            backup("old", "2026-01-01T00:00:00Z", Purpose::Regular, true),
            backup("good", "2026-01-02T00:00:00Z", Purpose::Regular, true),
            failed(backup("bad", "2026-01-03T00:00:00Z", Purpose::Regular, true)),
        ];
        let until = "2026-01-04T00:00:00Z".parse().unwrap();
        let ids = |found: Vec<&Backup>| found.iter().map(|b| b.entry.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(candidates(&all, "shop_db", None, until)), ["good", "old", "bad"]);
        assert_eq!(ids(candidates(&all[2..], "shop_db", None, until)), ["bad"]);
        assert_eq!(ids(candidates(&all, "shop_db", Some("bad"), until)), ["bad"]);
    }

    #[test]
    fn what_a_drill_found_is_read_as_it_was_written_and_never_passed_over() {
        let found =
            Finding { at: "2026-01-03T00:00:00Z".parse().unwrap(), why: "check `users`: 0".to_owned() };
        assert_eq!(Finding::read(&found.to_string()), found);
        assert_eq!(Finding::read("of another form").why, "of another form");
        let long = Finding { why: "é".repeat(400), ..found };
        assert!(Finding::read(&long.to_string()).why.len() <= LONGEST_REASON);
    }

    #[test]
    fn an_entry_of_a_newer_format_is_not_read() {
        let mut newer = backup("b", "2026-01-01T00:00:00Z", Purpose::Regular, true).entry;
        newer.schema = VERSION + 1;
        assert_eq!(Backup::read(&config(&newer)), None);
    }

    #[test]
    fn a_spoilt_backup_is_neither_verified_nor_proved_whatever_else_its_labels_say() {
        let mut config = config(&backup("b", "2026-01-01T00:00:00Z", Purpose::Regular, true).entry);
        config.labels.insert(PROVED.to_owned(), "2026-01-02T00:00:00Z".to_owned());
        let whole = Backup::read(&config).unwrap();
        assert!(whole.verified.is_some() && whole.proved.is_some() && whole.spoilt.is_none());
        let why = "é".repeat(LONGEST_REASON);
        let label = Finding { at: Timestamp::UNIX_EPOCH, why: why.clone() }.to_string();
        for (label, meant) in [(label.as_str(), &why[..LONGEST_REASON]), ("odd", "odd"), ("", "")] {
            config.labels.insert(SPOILT.to_owned(), label.to_owned());
            let read = Backup::read(&config).unwrap();
            assert_eq!((read.verified, read.proved), (None, None));
            assert_eq!(read.spoilt, Some(Finding { at: Timestamp::UNIX_EPOCH, why: meant.to_owned() }));
        }
    }

    #[test]
    fn entries_from_before_imports_are_read_and_written_as_they_were() {
        let made = backup("b", "2026-01-01T00:00:00Z", Purpose::Regular, true).entry;
        let text = serde_json::to_string(&made).unwrap();
        assert!(!text.contains("origin"), "{text}");
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), made);
        let imported = Entry { origin: Origin::Imported, ..made };
        let text = serde_json::to_string(&imported).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), imported);
    }
}
