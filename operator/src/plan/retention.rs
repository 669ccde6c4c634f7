//! What a backup would remove, and why every other one stays.

use super::explain::Draft;
use super::words::ago;
use crate::operation::catalogue::{Backup, Entry, Origin, Purpose};
use crate::operation::points::needed;
use crate::operation::record::{OpId, Operation, Work};
use crate::operation::retention::{Fate, Rules, Verdict, spare};

/// Stands for the backup that is to be made.
const THIS: &str = "this one";

/// Says what goes after the backup and what stays, by the same judgement that the step makes.
pub(super) fn facts(draft: &mut Draft<'_>) {
    let policy = draft.policy();
    let Some(rules) = Rules::of(&policy) else {
        if policy.data.is_some() {
            draft.mind(match policy.backup {
                Some(_) => {
                    "neither `skep.backup.schedule` nor `skep.backup.keep` is set, so no backup is removed"
                }
                None => "its backup labels have problems, so no backup is removed",
            });
        }
        return;
    };
    let (name, now) = (draft.service.name(), draft.now);
    let new = to_come(draft);
    let own = draft.world.backups.iter().filter(|b| b.entry.service == name);
    let mut verdicts = rules.judge(own.chain([&new]), now);
    spare(&mut verdicts, &needed(&draft.world.points));
    let line = |verdict: &Verdict<'_>| {
        let Entry { id, taken, .. } = &verdict.backup.entry;
        let why = match &verdict.fate {
            Fate::Stays(reasons) => reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Fate::Goes(cause) => cause.to_string(),
        };
        match id.as_str() {
            THIS => format!("{id}: {why}"),
            _ => format!("{id}, taken {taken} ({}): {why}", ago(*taken, now)),
        }
    };
    let is_open = |o: &&Operation| {
        matches!(o.intent.work, Work::Restore { .. })
            && o.intent.service == name
            && !o.journal.state.is_terminal()
    };
    let wanted = draft.world.operations.iter().find(is_open).map(|o| o.id.clone());
    let (goes, stays): (Vec<_>, Vec<_>) = verdicts.iter().partition(|v| v.goes());
    let (goes, stays) = (goes.into_iter().map(line).collect(), stays.into_iter().map(line).collect());
    draft.fact("Stays", stays);
    draft.fact("Goes", goes);
    if let Some(restore) = wanted {
        draft.mind(format!("no backup goes while restore {restore} is open: it may want any of them"));
    }
}

fn to_come(draft: &Draft<'_>) -> Backup {
    let entry = Entry {
        schema: Entry::version(None),
        id: THIS.to_owned(),
        operation: OpId::new(draft.now, THIS),
        service: draft.service.name().to_owned(),
        service_id: draft.service.id.clone(),
        engine: String::new(),
        database: String::new(),
        store: String::new(),
        dir: String::new(),
        manifest_sha256: String::new(),
        size: 0,
        taken: draft.now,
        purpose: Purpose::Regular,
        node: None,
        origin: Origin::Made,
        inner: None,
        base: None,
    };
    Backup {
        config: String::new(),
        version: 0,
        entry,
        verified: Some(draft.now),
        proved: None,
        loaded: None,
        restore_seconds: None,
        drill_failed: None,
        removing: None,
        spoilt: None,
        copies: Vec::new(),
    }
}
