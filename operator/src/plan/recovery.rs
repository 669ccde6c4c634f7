//! What a restore to a moment begins with.

use jiff::Timestamp;

use super::explain::Draft;
use super::words::{ago, size};
use crate::operation::catalogue::Backup;
use crate::operation::wal;

/// The backup whose base is recovered; says what can be restored.
pub(super) fn choose<'a>(draft: &mut Draft<'a>, to: Timestamp) -> Option<&'a Backup> {
    let (world, name, now) = (draft.world, draft.service.name(), draft.now);
    let standing = world.received.get(name);
    let received = standing.and_then(|s| s.until);
    let backup = match wal::choose(&world.backups, name, to, received, now) {
        Ok(backup) => backup,
        Err(why) => {
            draft.refuse(why);
            return None;
        }
    };
    let mut lines = vec![format!("{to} ({})", ago(to, now))];
    if let (Some(ended), Some(base)) = (wal::base_ended(backup), &backup.entry.base) {
        lines.push(format!(
            "from the base backup in {}, {ended} ({}), {} of databases",
            backup.entry.id,
            ago(ended, now),
            size(base.size)
        ));
    }
    lines.extend(wal::range(&world.backups, name, received).map(|range| format!("there are {range}")));
    draft.fact("Moment", lines);
    match standing {
        Some(standing) => {
            if let Some(why) = &standing.fault {
                draft.mind(format!("the write-ahead log is not received now: {why}"));
            }
        }
        None => draft.mind(
            "no receiver runs, so how far the write-ahead log was received shows only when it is recovered",
        ),
    }
    Some(backup)
}

/// What of it only the running operation can find out.
pub(super) fn unknown() -> Vec<String> {
    vec![
        "whether the write-ahead log up to the moment is all there, without a gap and undamaged".to_owned(),
        "whether there is room where the job runs for all databases of the server, and 2 GiB of log"
            .to_owned(),
    ]
}

/// The steps that are others than those of a restore of a backup, and how they are taken back.
pub(super) fn words(step: &str, id: &str, to: Timestamp) -> Option<(String, &'static str)> {
    Some(match step {
        "recover" => (
            format!(
                "in a job of its own: unpack the base of {id}, replay the log up to {to}, make a backup of the one database as it \
                 was then; the live server is only asked"
            ),
            "an unfinished one is removed, a finished one stays as a safety backup",
        ),
        "preflight" => (
            "read what was recovered in full; look at roles, extensions, room and sessions".to_owned(),
            "jobs ended",
        ),
        "beside" => (
            "restore what was recovered into a new database, run the checks there".to_owned(),
            "the new database is dropped",
        ),
        _ => return None,
    })
}
