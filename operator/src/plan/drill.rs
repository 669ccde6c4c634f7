//! What a drill would do.

use skep_runner::task::ScratchServer;

use super::explain::Draft;
use super::words::{ago, exact, size};
use crate::engines::{Data, DirectoryEngine};
use crate::operation::catalogue::{Backup, Entry, Shown, to_drill};
use crate::operation::drill::{NO_CHECK, NO_DRILL, scratch_name, scratch_side};
use crate::operation::record::Work;
use crate::operation::restore::Way;

pub(super) fn drill(draft: &mut Draft<'_>, work: &Work) {
    let Work::Drill { backup } = work else { return };
    let name = draft.service.name().to_owned();
    draft.labels(&name, false);
    let data = draft.data().data;
    let found = choose(draft, backup.as_deref());
    let policy = draft.policy();
    let (scratch, room) = match &data {
        Data::Directory(_) => (
            format!("`.skep-{}`, a directory beside the live files", scratch_side(&name)),
            "whether there is room: 1.2 × the size of the data, and a tenth of the file system",
        ),
        Data::Command(data) => match data.by.scratch() {
            Some(server) => (
                "a server of the job's own: begun empty in the same image, on no network of the service, gone with the job"
                    .to_owned(),
                match server {
                    ScratchServer::Rabbitmq => {
                        "whether the image's server starts so, and knows every plugin that the backup needs"
                    }
                    ScratchServer::Mongodb => {
                        "whether the image's server starts so, and whether there is room on the node: 1.2 × the size of the archive and half a GiB, and a tenth of the file system"
                    }
                },
            ),
            None => {
                draft.refuse(NO_DRILL);
                ("nothing".to_owned(), "")
            }
        },
        Data::Postgres | Data::None => (
            format!("`{}`, a database that nobody else knows", scratch_name(&name)),
            "whether there is room: 1.2 × the live size and the write-ahead log",
        ),
    };
    let at = if data.directory().is_some() { "on a scratch server" } else { "in the scratch database" };
    let mut checks: Vec<String> = policy.data_checks().map(|c| format!("{} (SQL): {at}", c.name)).collect();
    let shown = Shown::of_drill(&data, checks.len());
    if data.directory().is_some_and(|d| d.engine == DirectoryEngine::Volume) {
        checks.push("every file is compared with the archive".to_owned());
    }
    if let Data::Command(data) = &data {
        checks.extend(data.by.scratch().map(|server| match server {
            ScratchServer::Rabbitmq => "every definition is compared with the backup".to_owned(),
            ScratchServer::Mongodb => {
                "every collection is counted, and every document is compared with the backup".to_owned()
            }
        }));
    }
    let count = checks.len();
    draft.fact("Checks", checks);
    if shown == Shown::Loads {
        draft.mind(NO_CHECK);
    }
    draft.plan.unknown = vec![
        "whether the backup is whole (checksums, full read), and fits the server".to_owned(),
        room.to_owned(),
    ];
    draft.plan.users =
        "nothing: live data is only read, and where it is there is more to do while the backup loads"
            .to_owned();
    let id = found.map_or("a backup", |b| b.entry.id.as_str());
    draft.steps(work, Way::Beside, |step| match step {
        "claim" => (format!("hold {name}, as long as no other operation wants it"), "given back"),
        "plan" => ("freeze the backup and the checks".to_owned(), "forgotten"),
        "preflight" => {
            ("read the backup in full; look at the room, and whether it fits".to_owned(), "jobs ended")
        }
        "load" => (format!("load {id} into {scratch}"), "it is removed"),
        "check" if count == 0 => ("no check to run".to_owned(), ""),
        "check" => ("run the checks there".to_owned(), "jobs ended"),
        "drop" => ("remove what was loaded".to_owned(), "jobs ended"),
        "record" => (
            match shown {
                Shown::Proved => {
                    "note on the backup that it is proved, and in how many seconds it loads".to_owned()
                }
                Shown::Loads => "note on the backup that it loads, and in how many seconds".to_owned(),
            },
            "",
        ),
        "release" => (format!("give {name} back"), ""),
        other => (other.to_owned(), ""),
    });
}

fn choose<'a>(draft: &mut Draft<'a>, wanted: Option<&str>) -> Option<&'a Backup> {
    let (name, now) = (draft.service.name(), draft.now);
    let found = to_drill(&draft.world.backups, name, wanted, now);
    let Some(backup) = found.first().copied() else {
        draft.refuse(match wanted {
            Some(id) => format!("there is no backup `{id}` of {name}"),
            None => format!("there is no verified backup of {name}"),
        });
        return None;
    };
    let Entry { id, taken, size: bytes, .. } = &backup.entry;
    let mut lines = vec![format!("{id}, taken {taken} ({}), {}", ago(*taken, now), size(*bytes))];
    let took = backup.restore_seconds.and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
    let took = took.map(|t| format!("; it loaded in {}", exact(t))).unwrap_or_default();
    lines.extend(match (backup.proved, backup.loaded) {
        (Some(at), _) => Some(format!("last proved {}{took}", ago(at, now))),
        (None, Some(at)) => Some(format!("never proved; loaded without a check {}{took}", ago(at, now))),
        (None, None) => None,
    });
    lines.extend(
        backup.drill_failed.as_ref().map(|d| format!("its last drill failed {}: {}", ago(d.at, now), d.why)),
    );
    draft.fact("Backup", lines);
    Some(backup)
}
