//! Dumps that people made and keep in a directory with `MANIFEST.txt`: copied into a backup of Skep's own.
//!
//! A copy, not a link: a file that somebody else looks after may be written to, moved or removed any day, and a backup
//! that is one inode with it would change with it. What lies in their directory is only read.

use jiff::Timestamp;
use skep_runner::manifest::Manifest;
use skep_runner::task::{
    ArchiveHead, DirSeal, Discard, FileForm, FoundFile, LayoutCopy, LayoutScanned, Packed, PgSeal,
};
use skep_runner::{Report, Task};

use super::listing::CopiedAs;
use super::{ByHand, Copied, Listed, Listing, Taken, register, wish};
use crate::engines::{Data, Directory, DirectoryEngine, Volume};
use crate::operation::backup::Place;
use crate::operation::catalogue::{Backup, Purpose};
use crate::operation::data::unexpected;
use crate::operation::frozen::{self, Target};
use crate::operation::point::STACK;
use crate::operation::reading::{Flaw, named as named_all};
use crate::operation::record::OpId;
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::work::{self, Access, Order, Outcome};

/// Lists what of such a directory can be taken in for a service that keeps such data. A backup's id derives from its content
/// and its time, so that it is known again.
pub(super) fn list(
    listing: &mut Listing,
    target: &Target,
    keeps: Option<&Data>,
    scanned: LayoutScanned,
    registered: &[Backup],
) -> Result<(), String> {
    let LayoutScanned { dumps, files, others, left } = scanned;
    listing.flawed.extend(others.into_iter().map(|o| Flaw { id: o.file, why: o.why }));
    listing.flaws = usize::try_from(left).unwrap_or(usize::MAX);
    let dumps = dumps.into_iter().map(|found| {
        let is_meant = !matches!(keeps, Some(Data::Directory(_) | Data::Command(_)));
        let why = "a dump of PostgreSQL: it is for a service that keeps one".to_owned();
        let copied = if is_meant { Ok(CopiedAs::default()) } else { Err(why) };
        (found.artefact, found.head, copied)
    });
    let stack = target.spec["Labels"][STACK].as_str();
    let short = stack.and_then(|stack| target.name.strip_prefix(stack)?.strip_prefix('_'));
    let service = [target.name.as_str(), short.unwrap_or(&target.name)];
    let files = files.into_iter().map(|found| {
        let head = ArchiveHead { made: found.made.clone(), ..nothing_known() };
        let copied = copied_as(keeps, service, &found);
        (found.artefact, head, copied)
    });
    for (artefact, head, copied) in dumps.chain(files).collect::<Vec<_>>() {
        let copied = match copied {
            Ok(copied) => copied,
            Err(why) => {
                listing.flaws += 1;
                listing.flawed.push(Flaw { id: artefact.file, why });
                continue;
            }
        };
        let made = head.made.parse::<Timestamp>();
        let taken = made.map_err(|e| format!("{}: its time `{}`: {e}", artefact.file, head.made))?;
        let id = OpId::new(taken, &artefact.sha256).to_string();
        match registered.iter().find(|b| b.entry.id == id) {
            Some(known) if known.entry.service == target.name => listing.known += 1,
            Some(known) => {
                let of = &known.entry.service;
                return Err(format!("{} is registered as backup {id} of {of} already", artefact.file));
            }
            None => listing.new.push(Listed {
                dir: Place::of(target, id.clone()).dir,
                id,
                manifest_sha256: String::new(),
                engine: engine_of(keeps).map_or("postgres", DirectoryEngine::word).to_owned(),
                database: head.database.clone(),
                taken,
                size: artefact.size,
                purpose: Purpose::Regular,
                inner: None,
                base: None,
                by_hand: Some(ByHand { artefact, head, copied }),
            }),
        }
    }
    if listing.new.is_empty() && listing.known == 0 {
        return Err(format!(
            "nothing of it can be restored by this version for {}: {}",
            target.name,
            named_all(&listing.flawed)
        ));
    }
    Ok(())
}

fn engine_of(keeps: Option<&Data>) -> Option<DirectoryEngine> {
    match keeps {
        Some(Data::Directory(directory)) => Some(directory.engine),
        Some(Data::Postgres | Data::Command(_) | Data::None) | None => None,
    }
}

fn nothing_known() -> ArchiveHead {
    let text = String::new;
    ArchiveHead { database: text(), made: text(), server_version: text(), tool_version: text() }
}

/// What a file becomes in a backup of the service, or why it becomes none.
fn copied_as(keeps: Option<&Data>, service: [&str; 2], found: &FoundFile) -> Result<CopiedAs, String> {
    let directory = match keeps {
        Some(Data::Directory(directory)) => Some(directory),
        _ => None,
    };
    let packed = match found.form {
        FileForm::Rdb | FileForm::Tar => Packed::Plain,
        FileForm::TarGz => Packed::Gzip,
    };
    match (found.form, directory) {
        (FileForm::Rdb, Some(directory)) if directory.engine == DirectoryEngine::Redis => {
            Ok(CopiedAs { name: "dump.rdb".to_owned(), packed })
        }
        (FileForm::Rdb, _) => Err("an RDB: it is for a service with skep.data=redis".to_owned()),
        (FileForm::Tar | FileForm::TarGz, Some(Directory { engine: DirectoryEngine::Volume, volumes })) => {
            let volume = volume_of(volumes, service, &found.artefact.file)?;
            Ok(CopiedAs { name: format!("{volume}.tar"), packed })
        }
        (FileForm::Tar | FileForm::TarGz, _) => {
            Err("a volume: it is for a service with skep.data=volume".to_owned())
        }
    }
}

/// The volume that an archive is of, by its name: the volume's, or the service's, in the stack or with it, as
/// `files.tar.gz`, `volume_shop_files.tgz` or `grafana-20240215-020000.tar.gz` of a volume `grafana_data`.
fn volume_of<'a>(volumes: &'a [Volume], service: [&str; 2], file: &str) -> Result<&'a str, String> {
    let [volume] = volumes else {
        return Err(
            "a volume: the service has several, and each archive would be a backup without the others"
                .to_owned(),
        );
    };
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = [".tar.gz", ".tgz", ".tar"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let named = plain(stem);
    let named = [Some(named.as_str()), named.strip_prefix("volume_")];
    let mut named = named.into_iter().flatten().flat_map(|named| [Some(named), undated(named)]).flatten();
    let source = volume.mount["Source"].as_str().unwrap_or_default();
    let [full, short] = service;
    let known = [&volume.name, source, full, short].map(plain);
    if named.any(|named| known.iter().any(|k| k == named || k.strip_suffix("_data") == Some(named))) {
        return Ok(&volume.name);
    }
    let wanted = &volume.name;
    Err(format!(
        "a volume of another name than `{wanted}`, which the service has: want volumes/{wanted}.tar.gz"
    ))
}

/// A name as it is compared: file names and names in a stack write the same with either sign.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// A name without the time behind it.
fn undated(name: &str) -> Option<&str> {
    let bare =
        name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '_' | '.' | ':' | 'T' | 'Z'));
    let is_dated =
        name[bare.len()..].starts_with('_') && name.ends_with(|c: char| c.is_ascii_digit() || c == 'Z');
    is_dated.then_some(bare)
}

/// Moves the taking of one dump on: copied, then read in full and sealed, then registered.
pub(super) async fn take(
    cx: &mut Cx<'_>,
    target: &Target,
    listed: &Listed,
    by_hand: &ByHand,
    taken: &mut Taken,
) -> Result<Progress, Fault> {
    let Some(copied) = taken.copied.iter().find(|c| c.dir == listed.dir).cloned() else {
        return copy(cx, target, listed, by_hand, taken).await;
    };
    let (dir, manifest) = (listed.dir.clone(), manifest(target, listed, by_hand, &copied));
    let task = match DirectoryEngine::of(&listed.engine) {
        Some(engine) => Task::DirSeal(DirSeal { engine: engine.runner(), dir, manifest }),
        None => Task::PgSeal(PgSeal { dir, manifest }),
    };
    let report = match job(cx, target, task, &format!("e{}", taken.turn)).await? {
        Moved::Wait(wait) => return Ok(Progress::Wait(named(listed, wait))),
        Moved::Done(report) => report,
    };
    let (Report::PgSeal { manifest_sha256, size } | Report::DirSeal { manifest_sha256, size }) = report
    else {
        return Err(unexpected(&report));
    };
    let sealed = Listed { manifest_sha256, size, ..listed.clone() };
    if let Some(why) = register(cx, target, &sealed).await? {
        return Err(Fault::failed(format!("backup {}: {why}", listed.id)));
    }
    taken.taken.push(listed.id.clone());
    taken.next(cx).await?;
    Ok(Progress::wait("the next dump"))
}

async fn copy(
    cx: &mut Cx<'_>,
    target: &Target,
    listed: &Listed,
    by_hand: &ByHand,
    taken: &mut Taken,
) -> Result<Progress, Fault> {
    let from = wish(cx)?.layout.ok_or_else(|| Fault::failed("there is no directory to copy from"))?;
    let task = Task::LayoutCopy(LayoutCopy {
        from,
        artefact: by_hand.artefact.clone(),
        into: listed.dir.clone(),
        name: by_hand.copied.name.clone(),
        packed: by_hand.copied.packed,
    });
    let report = match job(cx, target, task, &format!("c{}", taken.turn)).await? {
        Moved::Wait(wait) => return Ok(Progress::Wait(named(listed, wait))),
        Moved::Done(report) => report,
    };
    let Report::LayoutCopy { artefact } = report else { return Err(unexpected(&report)) };
    taken.copied.push(Copied { dir: listed.dir.clone(), artefact });
    taken.next(cx).await?;
    Ok(Progress::wait("reading the copy back"))
}

/// How far a job is.
enum Moved {
    Wait(Wait),
    Done(Report),
}

/// A job that fails for good fails the import.
async fn job(cx: &mut Cx<'_>, target: &Target, task: Task, key: &str) -> Result<Moved, Fault> {
    let order = Order { key, target, task, store: Some(Access::Write), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Moved::Wait(wait)),
        Outcome::Done(report) => Ok(Moved::Done(*report)),
        Outcome::Failed(fault) => Err(Fault::failed(fault.message)),
    }
}

fn named(listed: &Listed, mut wait: Wait) -> Wait {
    let file = listed.by_hand.as_ref().map_or(listed.id.as_str(), |b| b.artefact.file.as_str());
    wait.why = format!("{file}: {}", wait.why);
    wait
}

/// What is known of a dump that Skep did not make. The properties of its database are the live one's at a restore (S4).
fn manifest(target: &Target, listed: &Listed, by_hand: &ByHand, copied: &Copied) -> Manifest {
    Manifest {
        schema: skep_runner::SCHEMA,
        id: listed.id.clone(),
        service: target.name.clone(),
        engine: listed.engine.clone(),
        image: String::new(),
        spec: serde_json::Value::Null,
        server_version: by_hand.head.server_version.clone(),
        tool_version: match listed.engine.as_str() {
            "postgres" => format!("pg_dump {}", by_hand.head.tool_version),
            _ => String::new(),
        },
        started: by_hand.head.made.clone(),
        ended: by_hand.head.made.clone(),
        artefacts: vec![copied.artefact.clone()],
        database: None,
        contents: None,
        base: None,
        roles: None,
    }
}

/// Removes the copies of an import that goes back; nothing of it runs any more.
///
/// # Errors
/// What the engine says.
pub(super) async fn discard(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let listing: Listing = cx.out("scan").unwrap_or_default();
    let by_hand: Vec<&Listed> = listing.new.iter().filter(|l| l.by_hand.is_some()).collect();
    let taken: Taken = cx.scratch().unwrap_or_default();
    // Nothing was begun where no job ever was.
    if by_hand.is_empty() || (cx.record().jobs.is_empty() && taken.turn == 0) {
        return Ok(Progress::done());
    }
    let target = frozen::load(cx).await?.target;
    for (nth, listed) in by_hand.iter().enumerate().take(taken.copied.len() + 1) {
        // What was not copied by this import and is sealed all the same is a backup that was there before.
        let sealed = taken.copied.iter().any(|c| c.dir == listed.dir);
        let key = format!("u{nth}");
        let task = Task::Discard(Discard { dir: listed.dir.clone(), sealed });
        let order = Order { key: &key, target: &target, task, store: Some(Access::Write), data: false };
        match work::run(cx, &order).await? {
            Outcome::Wait(wait) => return Ok(Progress::Wait(wait)),
            Outcome::Done(_) => {}
            Outcome::Failed(fault) => {
                cx.remark(format!("`{}` is left in store `{}`: {}", listed.dir, target.store, fault.message));
            }
        }
    }
    Ok(Progress::done())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skep_runner::Artefact;

    use super::*;

    fn keeping(engine: DirectoryEngine, names: &[&str]) -> Data {
        let volume = |name: &&str| {
            let mount = json!({ "Type": "volume", "Source": format!("shop_{name}"), "Target": "/data" });
            Volume::of_files(name, &mount)
        };
        Data::Directory(Directory { engine, volumes: names.iter().map(volume).collect() })
    }

    fn found(file: &str, form: FileForm) -> FoundFile {
        let artefact = Artefact { file: file.to_owned(), size: 1, sha256: "00".to_owned() };
        FoundFile { artefact, form, made: "2026-01-01T00:00:00Z".to_owned() }
    }

    #[test]
    fn each_file_is_for_a_service_that_keeps_such_data() {
        let volume = keeping(DirectoryEngine::Volume, &["files"]);
        let redis = keeping(DirectoryEngine::Redis, &["cache"]);
        let as_copied = |keeps, found: &FoundFile| copied_as(keeps, ["shop_app", "app"], found);
        for file in ["volumes/files.tar.gz", "volumes/shop_files.tgz", "volumes/volume_shop-files.tar.gz"] {
            let copied = as_copied(Some(&volume), &found(file, FileForm::TarGz)).unwrap();
            assert_eq!(copied, CopiedAs { name: "files.tar".to_owned(), packed: Packed::Gzip });
        }
        let copied = as_copied(Some(&redis), &found("redis/a.rdb", FileForm::Rdb)).unwrap();
        assert_eq!(copied, CopiedAs { name: "dump.rdb".to_owned(), packed: Packed::Plain });
        let several = keeping(DirectoryEngine::Volume, &["a", "b"]);
        for (keeps, file, form, said) in [
            (Some(&volume), "volumes/other.tar", FileForm::Tar, "of another name than `files`"),
            (Some(&several), "volumes/a.tar", FileForm::Tar, "the service has several"),
            (Some(&volume), "redis/a.rdb", FileForm::Rdb, "skep.data=redis"),
            (Some(&Data::Postgres), "volumes/files.tar", FileForm::Tar, "skep.data=volume"),
            (None, "redis/a.rdb", FileForm::Rdb, "skep.data=redis"),
        ] {
            let why = as_copied(keeps, &found(file, form)).unwrap_err();
            assert!(why.contains(said), "`{why}` does not tell `{said}`");
        }
    }

    #[test]
    fn an_archive_is_of_the_volume_or_the_service_in_its_name_and_of_no_other() {
        let volumes = |name: &str| {
            let mount = json!({ "Type": "volume", "Source": format!("hosting_{name}"), "Target": "/data" });
            [Volume::of_files(name, &mount)]
        };
        let is_of = |volume, service: &str, file| {
            let short = service.strip_prefix("hosting_").unwrap();
            volume_of(&volumes(volume), [service, short], file).is_ok()
        };
        for (volume, service, file) in [
            ("grafana_data", "hosting_grafana", "grafana-20240215-020000.tar.gz"),
            ("grafana_data", "hosting_dashboards", "grafana-20240215-020000.tar.gz"),
            ("nginx_logs", "hosting_proxy", "nginx-logs-20240215-020000.tar.gz"),
            ("nginx_logs", "hosting_proxy", "nginx_logs_2024-02-15T02:00:00Z.tgz"),
            ("files", "hosting_web", "web.tar"),
            ("files", "hosting_web", "hosting_web.tar"),
            ("files-2", "hosting_web", "files-2.tar"),
            ("files", "hosting_web", "volume_hosting_files-20240215.tar"),
        ] {
            assert!(is_of(volume, service, file), "{file} of {volume}, {service}");
        }
        for (volume, service, file) in [
            ("files", "hosting_web", "files-old.tar.gz"),
            ("files", "hosting_web", "files-old-20240215.tar.gz"),
            ("files", "hosting_web", "files2.tar.gz"),
            ("files_data", "hosting_web", "data.tar.gz"),
            ("files", "hosting_web", "20240215-020000.tar.gz"),
            ("files", "hosting_web", ".tar.gz"),
        ] {
            assert!(!is_of(volume, service, file), "{file} of {volume}, {service}");
        }
    }
}
