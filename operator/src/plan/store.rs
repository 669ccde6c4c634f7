//! What operations on the store would do that hold nothing: verify and import.

use super::explain::Draft;
use super::words::{ago, size};
use crate::operation::catalogue::Backup;
use crate::operation::record::Work;
use crate::operation::restore::Way;

/// How a step is taken back that leaves nothing but jobs.
const JOBS: &str = "jobs ended";

pub(super) fn verify(draft: &mut Draft<'_>, work: &Work, wanted: Option<&str>) {
    let name = draft.service.name().to_owned();
    let is_meant = |b: &&Backup| {
        let is_wanted = wanted.is_none_or(|id| b.entry.id == id);
        b.entry.service == name && b.removing.is_none() && is_wanted
    };
    let mut meant: Vec<&Backup> = draft.world.backups.iter().filter(is_meant).collect();
    meant.sort_by_key(|b| std::cmp::Reverse(b.entry.taken));
    if meant.is_empty() {
        draft.refuse(match wanted {
            Some(id) => format!("there is no backup `{id}` of {name}"),
            None => format!("there is no backup of {name}"),
        });
    }
    let line = |b: &&Backup| {
        let (id, bytes) = (&b.entry.id, size(b.entry.size));
        let state = match (&b.spoilt, b.verified) {
            (Some(spoilt), _) => format!("spoilt: {}", spoilt.why),
            (None, Some(at)) => format!("verified {}", ago(at, draft.now)),
            (None, None) => "never verified".to_owned(),
        };
        format!("{id}, {bytes}, {state}")
    };
    let lines = meant.iter().map(line).collect();
    draft.fact("Reads", lines);
    gives_way(draft);
    draft.steps(work, Way::Beside, |step| match step {
        "plan" => ("list the backups to read".to_owned(), "forgotten"),
        "read" => (
            "read each one in full, one job after the other, and note in the catalogue how it was found"
                .to_owned(),
            JOBS,
        ),
        other => (released(other), ""),
    });
}

pub(super) fn report(draft: &mut Draft<'_>, work: &Work) {
    "nothing".clone_into(&mut draft.plan.users);
    draft.steps(work, Way::Beside, |step| match step {
        "choose" => ("list the operations of which the store has no report".to_owned(), ""),
        "write" => ("write their reports into it, and remove the oldest".to_owned(), JOBS),
        other => (other.to_owned(), ""),
    });
}

pub(super) fn import(draft: &mut Draft<'_>, work: &Work) {
    let Work::Import { store, from, quick, layout, dry_run } = work else { return };
    let name = draft.service.name().to_owned();
    let from = from.as_deref().unwrap_or(&name).to_owned();
    let place = match layout {
        Some(dir) => format!("store `{store}`, {dir}/MANIFEST.txt and the files that it names"),
        None => format!("store `{store}`, v1/<stack>/{from}/<backup>"),
    };
    draft.fact("From", vec![place]);
    if draft.world.running(draft.service) == 0 {
        draft.mind(format!(
            "{name} has no running task: the jobs run in the image that its spec names, wherever its constraints allow"
        ));
    }
    gives_way(draft);
    let how = if *quick {
        "read and hash each one in full"
    } else {
        "read and hash each one in full, as its engine does too"
    };
    draft.steps(work, Way::Beside, |step| match step {
        "plan" => ("decide image and node beforehand".to_owned(), "forgotten"),
        "scan" if layout.is_some() => (
            "read every file that MANIFEST.txt names, refuse everything where one is not what it says, and list the dumps \
             that can be restored"
                .to_owned(),
            JOBS,
        ),
        "scan" => (
            "list what the manifests in the store claim, and compare it with the catalogue; refuse everything where one \
             of them is registered with another checksum"
                .to_owned(),
            JOBS,
        ),
        "take" if *dry_run => ("nothing: this only lists".to_owned(), ""),
        "take" if layout.is_some() => (
            "copy each dump into a backup of its own, read the copy in full, then register it as imported; their files \
             stay as they are"
                .to_owned(),
            "taken out of the catalogue, and the copies removed",
        ),
        "take" => (format!("{how}, then register it as imported"), "taken out of the catalogue"),
        other => (released(other), ""),
    });
}

fn gives_way(draft: &mut Draft<'_>) {
    let name = draft.service.name().to_owned();
    if draft.world.holder(&name).is_some_and(|op| matches!(op.intent.work, Work::Restore { .. })) {
        draft.mind(format!("a restore of {name} goes first"));
    }
    "nothing: only the store is read, and nothing waits for it".clone_into(&mut draft.plan.users);
}

fn released(step: &str) -> String {
    match step {
        "release" => "forget the plan".to_owned(),
        other => other.to_owned(),
    }
}
