//! What a drill would do.

use super::explain::Draft;
use super::words::{ago, exact, size};
use crate::operation::catalogue::{Backup, Entry, to_drill};
use crate::operation::drill::{NOT_YET, scratch_name};
use crate::operation::record::Work;
use crate::operation::restore::Way;
use crate::policy::Engine;

pub(super) fn drill(draft: &mut Draft<'_>, work: &Work) {
    let Work::Drill { backup } = work else { return };
    let name = draft.service.name().to_owned();
    draft.labels(&name, false);
    draft.data();
    if draft.policy().data.is_some_and(|data| data.engine != Engine::Postgres) {
        draft.refuse(NOT_YET);
    }
    let found = choose(draft, backup.as_deref());
    let policy = draft.policy();
    let checks: Vec<String> =
        policy.data_checks().map(|c| format!("{} (SQL): in the scratch database", c.name)).collect();
    let count = checks.len();
    draft.fact("Checks", checks);
    if count == 0 {
        draft.mind(
            "no SQL check is defined (skep.check.<name>.sql): that the backup loads is proved, not that its data is right",
        );
    }
    draft.plan.unknown = vec![
        "whether the backup is whole (checksums, full read), and fits the server's roles and extensions"
            .to_owned(),
        "whether there is room: 1.2 × the live size and the write-ahead log".to_owned(),
    ];
    draft.plan.users =
        "nothing: the live data is only read, and the server has more to do while the backup loads"
            .to_owned();
    let id = found.map_or("a backup", |b| b.entry.id.as_str());
    let scratch = scratch_name(&name);
    draft.steps(work, Way::Beside, |step| match step {
        "claim" => (format!("hold {name}, as long as no other operation wants it"), "given back"),
        "plan" => ("freeze the backup and the checks".to_owned(), "forgotten"),
        "preflight" => {
            ("read the backup in full; look at roles, extensions and room".to_owned(), "jobs ended")
        }
        "load" => (format!("load {id} into `{scratch}`, a database that nobody else knows"), "it is dropped"),
        "check" if count == 0 => ("no check to run".to_owned(), ""),
        "check" => ("run the checks there".to_owned(), "jobs ended"),
        "drop" => (format!("drop `{scratch}`"), "jobs ended"),
        "record" => ("note on the backup that it is proved, and in how many seconds".to_owned(), ""),
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
    lines.extend(backup.proved.map(|at| {
        let took = backup.restore_seconds.and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
        let took = took.map(|t| format!("; it loaded in {}", exact(t))).unwrap_or_default();
        format!("last proved {}{took}", ago(at, now))
    }));
    lines.extend(
        backup.drill_failed.as_ref().map(|d| format!("its last drill failed {}: {}", ago(d.at, now), d.why)),
    );
    draft.fact("Backup", lines);
    Some(backup)
}
