//! What a message says in words, by kind of work and phase. Pure; claims nothing that the record does not prove.

use super::phase::Phase;
use crate::operation::record::{Also, Manner, Operation, Work};
use crate::operation::restore::part;
use crate::operation::rollback::with_data;
use crate::runtime::scrub;

/// How a message looks and how urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Something goes on.
    Info,
    /// It went well.
    Good,
    /// It did not, but nothing is broken; or a person is asked something.
    Caution,
    /// A person is needed now.
    Alarm,
}

/// A command for the reader.
pub(super) struct Command {
    /// What it is for.
    pub(super) purpose: &'static str,
    /// The words after `skep ops`.
    pub(super) verb: &'static str,
}

const SHOW: Command = Command { purpose: "Look at every step", verb: "show" };
const APPROVE: Command = Command { purpose: "Approve", verb: "approve" };
const CANCEL: Command = Command { purpose: "Cancel", verb: "cancel" };
const END: Command = Command { purpose: "End it now", verb: "cancel" };
const RETRY: Command = Command { purpose: "Try the failed step again", verb: "retry" };

/// `Restore of shop_db`: the constant part of every message of an operation.
pub(super) fn title(work: &Work, service: &str) -> String {
    let kind = match work {
        Work::Backup => "Backup",
        Work::Restore { .. } => "Restore",
        Work::Drill { .. } => "Drill",
        Work::Maintenance { .. } => "Maintenance",
        Work::Expire => "Clean-up",
        Work::Report => "Reports",
        Work::Verify { .. } => "Backup verification",
        Work::Import { .. } => "Backup import",
        Work::Point { .. } => "Restore point",
        Work::Sleep { .. } => "Sleep",
        Work::Wake => "Waking",
        Work::Restart { .. } => "Restart",
        Work::Update { .. } => "Update",
        Work::Rollback { .. } => "Rollback",
    };
    format!("{kind} of {service}")
}

/// The state in a word or two.
pub(super) const fn badge(phase: Phase) -> &'static str {
    match phase {
        Phase::Announced => "Queued",
        Phase::NeedsApproval => "Waiting for approval",
        Phase::Started => "Under way",
        Phase::Finished => "Finished",
        Phase::Failed => "Failed",
        Phase::RolledBack => "Rolled back",
        Phase::Cancelled => "Cancelled",
        Phase::Stuck => "Needs a person",
    }
}

/// Tone of a phase.
pub(super) const fn tone(phase: Phase) -> Tone {
    match phase {
        Phase::Announced | Phase::Started => Tone::Info,
        Phase::Finished => Tone::Good,
        Phase::NeedsApproval | Phase::RolledBack | Phase::Cancelled => Tone::Caution,
        Phase::Failed | Phase::Stuck => Tone::Alarm,
    }
}

/// The first sentence.
pub(super) fn lead(work: &Work, phase: Phase, service: &str) -> String {
    let doing = match work {
        Work::Backup => format!("the backup of {service}"),
        Work::Restore { .. } => format!("the restore of {service} from a backup"),
        Work::Drill { .. } => format!("the drill of {service}, which restores a backup on the side"),
        Work::Maintenance { .. } => format!("the maintenance of {service}"),
        Work::Expire => format!("the removal of expired data of {service}"),
        Work::Report => format!("writing reports into the store of {service}"),
        Work::Verify { .. } => format!("the verification of backups of {service}"),
        Work::Import { .. } => format!("the import of backups of {service}"),
        Work::Point { .. } => format!("the restore point of stack {service}"),
        Work::Sleep { .. } => format!("scaling {service} to zero"),
        Work::Wake => format!("waking {service}"),
        Work::Restart { .. } => format!("the restart of {service}"),
        Work::Update { image, also, .. } => format!("the update of {service} to {}", images(image, also)),
        Work::Rollback { .. } => format!("the rollback of stack {service} to a restore point"),
    };
    match phase {
        Phase::Announced => format!("{} waits for other operations to end.", capital(&doing)),
        Phase::NeedsApproval => format!("{} waits for a person to approve it.", capital(&doing)),
        Phase::Started => begun(work, service),
        Phase::Finished => ended_well(work, service),
        Phase::Failed if matches!(work, Work::Drill { .. }) => {
            format!("{} did not prove it; nothing live was changed.", capital(&doing))
        }
        Phase::Cancelled if matches!(work, Work::Drill { .. }) => {
            format!("{} ended early; nothing live was changed, and nothing is proved.", capital(&doing))
        }
        Phase::Failed if matches!(work, Work::Verify { .. }) => {
            format!("Not every backup of {service} that was to be verified was read back and found whole.")
        }
        Phase::Failed if *work == Work::Wake => {
            format!(
                "{} did not end well: not everything is up. What was started stays started.",
                capital(&doing)
            )
        }
        Phase::Failed if matches!(work, Work::Restart { .. }) => {
            format!(
                "{} did not end well. Whatever it had stopped was started again, with the spec that it had.",
                capital(&doing)
            )
        }
        Phase::Failed if matches!(work, Work::Update { .. }) => {
            format!("{} did not end well, and nothing was put back.", capital(&doing))
        }
        Phase::Failed => format!("{} ended before anything was changed.", capital(&doing)),
        Phase::RolledBack => format!("{} failed, and everything was put back as it was.", capital(&doing)),
        Phase::Cancelled => {
            format!("{} was cancelled by a person; everything is as it was before.", capital(&doing))
        }
        Phase::Stuck => format!("{} cannot go on by itself, nor back.", capital(&doing)),
    }
}

fn begun(work: &Work, service: &str) -> String {
    match work {
        Work::Backup => format!("The data of {service} is being backed up."),
        Work::Restore { .. } => format!("The data of {service} is being restored from a backup."),
        Work::Drill { .. } => {
            format!("A backup of {service} is being restored on the side, to prove that it can be.")
        }
        Work::Maintenance { .. } => format!("Maintenance of {service} has begun."),
        Work::Expire => format!("Data of {service} that was kept from earlier restores is being removed."),
        Work::Report => format!("Reports of operations are being written into the store of {service}."),
        Work::Verify { .. } => format!("Backups of {service} are being read back in full."),
        Work::Import { .. } => format!("Backups of {service} that a store holds are being looked through."),
        Work::Point { .. } => format!("A restore point of stack {service} is being taken."),
        Work::Sleep { .. } => format!("{service} is being scaled to zero."),
        Work::Wake => format!("{service} is being brought back."),
        Work::Restart { .. } => format!("{service} is being restarted."),
        Work::Update { image, also, .. } => {
            format!("{service} {} being updated to {}.", are(also, "is", "are"), images(image, also))
        }
        Work::Rollback { .. } => format!("Stack {service} is being put back to a restore point."),
    }
}

fn ended_well(work: &Work, service: &str) -> String {
    match work {
        Work::Backup => {
            format!("The data of {service} was backed up, and the backup was read back and verified.")
        }
        Work::Restore { .. } => format!("The data of {service} was restored from a backup and verified."),
        Work::Drill { .. } => {
            format!(
                "A backup of {service} was restored on the side and has passed every check that there is; nothing of it is left there."
            )
        }
        Work::Maintenance { .. } => format!("Maintenance of {service} is over."),
        Work::Expire => format!("Data of {service} that was kept from earlier restores was removed."),
        Work::Report => format!("Reports of operations are in the store of {service}."),
        Work::Verify { .. } => format!("Backups of {service} were read back in full and are whole."),
        Work::Import { dry_run: true, .. } => {
            format!("What a store holds of {service} was listed; nothing was taken in.")
        }
        Work::Import { dry_run: false, .. } => {
            format!(
                "What a store holds of {service} was read in full, and what is whole is in the catalogue."
            )
        }
        Work::Rollback { only, .. } if with_data(only) => {
            format!("Stack {service} was put back to a restore point, its data included, and runs.")
        }
        Work::Rollback { .. } => {
            format!("Services of stack {service} were put back to a restore point, and run.")
        }
        Work::Sleep { .. } => format!("{service} sleeps: it has no tasks until it is woken."),
        Work::Wake => format!("{service} is awake and up."),
        Work::Restart { .. } => format!("{service} was restarted, and is up."),
        Work::Update { image, also, .. } => format!(
            "{service} {} {}, and {} watched.",
            are(also, "runs", "run"),
            images(image, also),
            are(also, "was", "were")
        ),
        Work::Point { without_data: true } => {
            format!("A restore point of stack {service} was taken, without data.")
        }
        Work::Point { without_data: false } => {
            format!("A restore point of stack {service} was taken; its backups were read back and verified.")
        }
    }
}

/// What users notice.
pub(super) fn impact(work: &Work, phase: Phase, service: &str) -> String {
    match (work, phase) {
        (Work::Verify { .. }, Phase::Failed) => format!(
            "None for users. A backup of {service} that is spoilt is marked so, and no restore chooses it."
        ),
        (Work::Wake, Phase::Failed) => {
            format!("{service}, or something that it needs, may not answer: please look at its tasks.")
        }
        (Work::Restart { .. }, Phase::Failed) => {
            format!("{service}, or something that needs it, may not answer: please look at its tasks.")
        }
        (Work::Update { also, .. }, Phase::Failed) if !also.is_empty() => format!(
            "{service} have the images that the notes below name, else those that they had: please look at their tasks."
        ),
        (Work::Update { .. }, Phase::Failed) => format!(
            "{service} has the image that the notes below name, else the one that it had: please look at its tasks."
        ),
        (_, Phase::Failed) => "None: nothing was changed.".to_owned(),
        (Work::Update { also, .. }, Phase::RolledBack | Phase::Cancelled) => format!(
            "None any more: {service} {} as it was before. Where data went back as well, the notes below say to when: what was written since is not in it, and is kept.",
            are(also, "is", "are, each")
        ),
        (_, Phase::RolledBack | Phase::Cancelled) => {
            "None any more: everything is as it was before.".to_owned()
        }
        (_, Phase::Stuck) => format!(
            "{service}, or services that use it, may be stopped or show the maintenance page until a person decides."
        ),
        (Work::Drill { .. }, _) => {
            format!("None expected: the live data of {service} is only read, and its server has more to do.")
        }
        (Work::Backup | Work::Point { .. }, _) => format!("None expected: {service} keeps running."),
        (Work::Rollback { only, .. }, phase) if with_data(only) && phase != Phase::Finished => format!(
            "Services of {service} that use its data are stopped, or show the maintenance page, while it is put back."
        ),
        (Work::Rollback { .. }, Phase::Finished) => "None any more: what was put back runs.".to_owned(),
        (Work::Rollback { .. }, _) => format!(
            "Services of {service} whose spec changes are updated one after the other, each as its own update settings say."
        ),
        (Work::Expire, Phase::Finished) => {
            "None for users. What was removed can no longer be gone back to.".to_owned()
        }
        (Work::Expire | Work::Report | Work::Verify { .. } | Work::Import { .. }, _) => {
            "None for users.".to_owned()
        }
        (Work::Sleep { .. }, _) => format!("{service} does not answer while it sleeps."),
        (Work::Restart { .. }, Phase::Finished) => format!("{service} answers users again."),
        (Work::Restart { manner: Manner::Rolling, .. }, _) => {
            format!("{service} answers, save for a moment where a task must stop before the next one starts.")
        }
        (Work::Update { also, .. }, Phase::Finished) => {
            format!("None any more: {service} {} users.", are(also, "answers", "answer"))
        }
        (Work::Update { also, .. }, _) => format!(
            "{service} {}, save for a moment where a task must stop before the next one starts.",
            are(also, "answers", "answer")
        ),
        (Work::Restart { .. }, _) => format!(
            "{service}, and what needs it, may not answer, or shows the maintenance page, until it is up again."
        ),
        (Work::Wake, Phase::Finished) => format!("{service} answers users again."),
        (Work::Wake, _) => format!("{service} does not answer until it is up."),
        (Work::Maintenance { .. }, Phase::Finished) => format!("{service} answers users again."),
        (Work::Maintenance { .. }, Phase::Started) => format!("Users of {service} see the maintenance page."),
        (Work::Maintenance { .. }, _) => {
            format!("None yet. Once it begins, users of {service} see the maintenance page.")
        }
        (Work::Restore { .. }, Phase::Finished) => {
            "Changes made after the backup was taken are not in the restored data.".to_owned()
        }
        (Work::Restore { in_place, quiesce, .. }, _) => restoring(*in_place, *quiesce, phase, service),
    }
}

fn restoring(in_place: Option<bool>, quiesce: Option<bool>, phase: Phase, service: &str) -> String {
    let when = if phase == Phase::Started { "" } else { "None yet. Once it runs: " };
    let what = match (in_place, quiesce) {
        (Some(true), _) => {
            "services that use the data stop, or show the maintenance page, for as long as the restore takes."
        }
        (Some(false), Some(false)) => {
            "services that use the data keep running; their connections are cut once, when the data is replaced."
        }
        (Some(false), _) => {
            "the new data is built beside the old; services that use it stop, or show the maintenance page, \
             only while the one is exchanged for the other."
        }
        (None, _) => {
            "services that use the data may stop for a while, or show the maintenance page, when it is replaced."
        }
    };
    let text = if when.is_empty() { capital(what) } else { format!("{when}{what}") };
    format!("{text} Changes made to {service} after the backup was taken will not be in the restored data.")
}

/// What happens next, or what the reader should do.
pub(super) fn next(operation: &Operation, phase: Phase) -> String {
    match phase {
        Phase::Announced => "It begins by itself; another message tells when it does.".to_owned(),
        Phase::NeedsApproval => {
            "Nothing happens until somebody approves or cancels it with one of the commands below.".to_owned()
        }
        Phase::Started => match operation.intent.work {
            Work::Maintenance { until: None } => {
                "It lasts until somebody ends it with the command below; another message tells when it is over."
                    .to_owned()
            }
            Work::Maintenance { until: Some(_) }
            | Work::Backup
            | Work::Restore { .. }
            | Work::Drill { .. }
            | Work::Expire
            | Work::Report
            | Work::Verify { .. }
            | Work::Import { .. }
            | Work::Point { .. }
            | Work::Sleep { .. }
            | Work::Wake
            | Work::Restart { .. }
            | Work::Update { .. }
            | Work::Rollback { .. } => {
                "Nothing to do: another message tells how it ended.".to_owned()
            }
        },
        Phase::Finished => match operation.intent.work {
            Work::Restore { .. } | Work::Rollback { .. } => "Please look whether the application shows what you expect.".to_owned(),
            Work::Import { dry_run: false, .. } => {
                "Please try one of them: nothing but a restore shows that it is what was once backed up."
                    .to_owned()
            }
            Work::Backup
            | Work::Drill { .. }
            | Work::Maintenance { .. }
            | Work::Expire
            | Work::Report
            | Work::Verify { .. }
            | Work::Import { .. }
            | Work::Sleep { .. }
            | Work::Wake
            | Work::Restart { .. }
            | Work::Update { .. }
            | Work::Point { .. } => "Nothing to do.".to_owned(),
        },
        Phase::Failed if matches!(operation.intent.work, Work::Verify { .. }) => {
            "Please look at the store: a disk that spoils one file may spoil others. Take a new backup where none of the last \
             ones is whole."
                .to_owned()
        }
        Phase::Failed | Phase::RolledBack => {
            "Once the cause is mended, ask for the operation again.".to_owned()
        }
        Phase::Cancelled => "Nothing to do.".to_owned(),
        Phase::Stuck => {
            let kept = if operation.journal.remarks.is_empty() { "" } else { " Please read the notes below first." };
            format!("A person must look at it now. Nothing more is changed until somebody decides.{kept}")
        }
    }
}

/// Commands for the reader.
pub(super) fn commands(work: &Work, phase: Phase) -> &'static [Command] {
    match (phase, work) {
        (Phase::Started, Work::Maintenance { .. }) => &[END, SHOW],
        (Phase::Announced | Phase::Started, _) => &[SHOW, CANCEL],
        (Phase::NeedsApproval, _) => &[APPROVE, CANCEL, SHOW],
        (Phase::Finished | Phase::Failed | Phase::RolledBack | Phase::Cancelled, _) => &[SHOW],
        (Phase::Stuck, _) => &[SHOW, RETRY],
    }
}

/// What a step does, for people, in mails and on the status page. A name that is not known here reads as itself.
pub(crate) fn step(work: &Work, name: &str) -> String {
    let text = match (work, name) {
        (_, "claim") => "Take hold of the services",
        (_, "plan") => "Decide every detail beforehand",
        (_, "release") => "Give the services back",
        (Work::Backup, "dump") => "Dump the data",
        (Work::Backup, "verify") => "Read the backup back in full",
        (Work::Backup, "ship") => "Bring it to its store",
        (Work::Backup, "copy") => "Copy it to further stores",
        (Work::Backup, "register") => "Register it in the catalogue",
        (Work::Backup, "prune") => "Remove backups that no rule keeps",
        (Work::Restore { .. }, "recover") => "Recover the moment, and make a backup of it",
        (Work::Restore { .. }, "preflight") => "Look at the backups, the data and the room",
        (Work::Restore { .. }, "expire") => "Drop what an earlier restore kept",
        (Work::Restore { .. }, "safety") => "Back up what is about to be replaced",
        (Work::Restore { .. }, "beside") => "Restore beside, and check it there",
        (Work::Restore { .. }, "stop") => "Stop the clients, page on",
        (Work::Restore { .. }, "halt") => "Stop the data service",
        (Work::Restore { .. }, "move") => "Exchange the files by renames",
        (Work::Restore { .. }, "serve") => "Start the data service, and check it",
        (Work::Restore { .. }, "cut") => "Cut over by rename",
        (Work::Restore { .. }, "replace") => "Rebuild the data in place",
        (Work::Restore { .. }, "flush") => "Empty the caches",
        (Work::Restore { .. }, "canary") => "Try one client on the new data",
        (Work::Restore { .. }, "start") => "Start the clients, page off",
        (Work::Restore { .. }, "verify") => "Check data and application",
        (Work::Restore { .. }, "keep") => "Keep the old data until it expires",
        (Work::Drill { .. }, "preflight") => "Read the backup in full; look at the room, and whether it fits",
        (Work::Drill { .. }, "load") => "Load it on the side",
        (Work::Drill { .. }, "check") => "Run the checks there",
        (Work::Drill { .. }, "drop") => "Remove what was loaded",
        (Work::Drill { .. }, "record") => "Note on the backup what was shown",
        (Work::Sleep { .. }, "stop") => "Scale to zero",
        (Work::Sleep { .. }, "remember") => "Write down what it goes back to",
        (Work::Wake, "recall") => "Look up what it goes back to",
        (Work::Wake, "start") => "Bring it back, what it needs first",
        (Work::Wake, "forget") => "Note that it is awake",
        (Work::Restart { .. } | Work::Update { .. }, "preflight") => "Ask what must not be interrupted",
        (Work::Restart { .. }, "stop") => "Stop, what needs it first",
        (Work::Restart { .. }, "start") => "Start again, each up and checked before the next",
        (Work::Restart { .. }, "roll") => "Replace the tasks of what runs on",
        (Work::Update { .. }, "backup") => "Back up the data, where there is any",
        (Work::Update { .. }, "apply") => "Give it the new image",
        (Work::Update { .. }, "check") => "Run its checks",
        (Work::Update { .. }, "watch") => "Watch for red flags",
        (Work::Wake, "settle") => "See that everything is up",
        (Work::Maintenance { .. }, "stop") => "Page on",
        (Work::Maintenance { .. }, "hold") => "Hold until told, or until its time is over",
        (Work::Maintenance { .. }, "start") => "Page off",
        (Work::Verify { .. }, "read") => "Read each backup back in full",
        (Work::Import { .. }, "scan") => "List what the store holds",
        (Work::Import { .. }, "take") => "Read each in full, then register it",
        (Work::Point { .. }, "dump") => "Dump the data of every data service",
        (Work::Point { .. }, "verify") => "Read every dump back in full",
        (Work::Point { .. }, "ship") => "Bring what was staged to its stores",
        (Work::Point { .. }, "register") => "Register the backups, then the point",
        (Work::Point { .. }, "prune") => "Remove points beyond those that are kept",
        (Work::Restore { .. }, part::READY) => "Wait until the clients have stopped",
        (Work::Restore { .. }, part::VERDICT) => "Wait until all data of the stack is back",
        (Work::Rollback { .. }, "data") => "Build the data of the point beside, and check it there",
        (Work::Rollback { .. }, "stop") => "Stop the clients, page on",
        (Work::Rollback { .. }, "cut") => "Cut over to the data of the point, all of it",
        (Work::Rollback { .. }, "canary") => "Try one client on what was put back",
        (Work::Rollback { .. }, "start") => "Start the clients, page off",
        (Work::Rollback { .. }, "safety") => "Take a restore point of what is there now",
        (Work::Rollback { .. }, "configs") => "Make configs again that were removed",
        (Work::Rollback { .. }, "apply") => "Put the specs back, one service after the other",
        (Work::Rollback { .. }, "check") => "Run the checks of what was put back",
        (Work::Report, "choose") => "List what the store has no report of",
        (Work::Report, "write") => "Write the reports",
        (Work::Expire, "drop") => "Drop what was kept past its time",
        (Work::Expire, "forget") => "Forget it in the record",
        _ => return capital(&scrub::line(&name.replace(['-', '_'], " "), 60)),
    };
    text.to_owned()
}

/// The image of an update, where all of its services get the same.
fn images(image: &str, also: &[Also]) -> String {
    match also.iter().all(|other| other.image == image) {
        true => scrub::line(image, 120),
        false => "their new images".to_owned(),
    }
}

/// A verb for one service or for several.
const fn are(also: &[Also], one: &'static str, several: &'static str) -> &'static str {
    if also.is_empty() { one } else { several }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
