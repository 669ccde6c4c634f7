//! Preflight: looks at the backups and at the server, and judges whether the restore may go on; changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_runner::line::FaultKind;
use skep_runner::manifest::Manifest;
use skep_runner::task::{Named, PgInspect, PgInspection};
use skep_runner::{Fault as JobFault, Report, Task};

use super::judge::{self, Judgement, Known, judge};
use super::prepare::{NO_WAY_BACK, done};
use super::{Way, directory, part, roles};
use crate::engines::{By, Data};
use crate::operation::catalogue::Entry;
use crate::operation::data::{examined, unexpected};
use crate::operation::drill;
use crate::operation::frozen::{self, Frozen};
use crate::operation::record::{Operation, Trigger};
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::stores::{self, Hand};
use crate::operation::whereabouts::Shelf;
use crate::operation::work::{self, Access, Order, Outcome};

/// What preflight found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Preflight {
    /// Ids of the backups that may be used, best first; the first was read in full.
    pub usable: Vec<String>,
    /// The live database, where it exists.
    pub live: Option<Named>,
    /// Size in bytes of what will be built.
    pub size: u64,
    /// What a person was asked to approve.
    pub asked: Vec<String>,
    /// Kept databases of earlier restores that exist and hold no slot.
    pub kept: Vec<Named>,
    /// Roles that are to be made for each backup, by id.
    pub roles: BTreeMap<String, Vec<String>>,
}

/// Looks at the backups and the server, and judges.
pub(super) async fn preflight(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    if Way::of(cx.op) == Way::InPlace {
        stores::can_go_back(&cx.env.settings, &frozen.target)?;
    }
    if let Data::Command(_) = frozen.target.data {
        return of_commands(cx, &frozen).await;
    }
    let (mut inspection, seen) = match inspect(cx, &frozen).await? {
        Looked::Wait(progress) => return Ok(progress),
        Looked::Seen { inspection, seen } => (inspection, seen),
    };
    // Before anything stops: the safety backup, which would find out as well, comes after the stop.
    if inspection.live.is_none() && Way::of(cx.op) == Way::InPlace {
        return Err(Fault::failed(NO_WAY_BACK));
    }
    roles::hint(cx, &seen);
    let (usable, manifest, roles) = match usable(cx, &frozen, &seen).await? {
        Candidates::Wait(progress) => return Ok(progress),
        Candidates::Usable { ids, first, roles } => (ids, first, roles),
    };
    // S17: a table that is lost makes the live database small, and one that is gone has no size at all.
    if Way::of(cx.op) != Way::InPlace {
        // Dropped before anything is built.
        judge::reckon_with(&mut inspection, |kept| kept.slots.is_empty());
    }
    let live = inspection.properties.as_ref().map_or(0, |p| p.size);
    let size = live.max(manifest.database.as_ref().map_or(0, |d| d.size));
    let mut judgement = judge(&inspection, &known(cx, &frozen).await?, size);
    let passing = std::mem::take(&mut judgement.passing);
    match part::is_unattended(cx).await? {
        true if !judgement.approve.is_empty() => {
            let why = judgement.approve.join("; ");
            return Err(Fault::failed(format!("nobody has asked for this now: {why}")));
        }
        // Where tasks end again and again, some have just ended.
        true => judgement.remarks.extend(passing),
        false => judgement.approve.extend(passing),
    }
    if let Some(progress) = act_on(cx, judgement)? {
        return Ok(progress);
    }
    let out = Preflight {
        usable,
        live: inspection.live.clone(),
        size,
        asked: cx.scratch::<Preflight>()?.asked,
        kept: inspection.kept.iter().filter(|k| k.slots.is_empty()).map(|k| k.database.clone()).collect(),
        roles,
    };
    done(cx, &out)
}

/// What a running service alone takes, nobody else can look into: the backup is read in full, and what is not known is
/// said.
async fn of_commands(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Progress, Fault> {
    let ids = match usable(cx, frozen, &Seen::default()).await? {
        Candidates::Wait(progress) => return Ok(progress),
        Candidates::Usable { ids, first: _, roles: _ } => ids,
    };
    let (by, name) = match &frozen.target.data {
        Data::Command(data) => (&data.by, &frozen.target.name),
        Data::None | Data::Postgres | Data::Directory(_) => {
            return Err(Fault::failed("its data is elsewhere"));
        }
    };
    cx.remark(match by {
        By::Commands(_) => format!(
            "what else uses {name}, and how much room its load command needs, Skep cannot know; {name} itself keeps running"
        ),
        By::Rabbitmq => format!(
            "what else uses {name} Skep cannot know; {name} itself keeps running, and its messages stay in their queues"
        ),
        By::Mongodb => format!(
            "what else uses {name}, and how much room loading needs, Skep cannot know; {name} itself keeps running, and its accounts stay as they are"
        ),
    });
    done(cx, &Preflight { usable: ids, ..Preflight::default() })
}

/// The backups that may be used.
pub(super) enum Candidates {
    Wait(Progress),
    Usable {
        /// Their ids, best first.
        ids: Vec<String>,
        /// The manifest of the first, which was read in full.
        first: Box<Manifest>,
        /// Roles that are to be made for each, by id.
        roles: BTreeMap<String, Vec<String>>,
    },
}

/// What a look at the backups of the plan has found.
#[derive(Default)]
pub struct Seen {
    /// What is wrong with those that could be looked at, by id.
    pub itself: BTreeMap<String, Vec<String>>,
    /// What they need that is missing here, by id.
    pub lacking: BTreeMap<String, Vec<String>>,
    /// Why others could not be looked at: nothing is known about those. What has to be fetched first is nowhere.
    pub unread: BTreeMap<String, String>,
    /// Roles that are to be made for them, by id.
    pub roles: BTreeMap<String, Vec<String>>,
}

/// What stands against a backup; nothing, where `itself` and `here` are empty.
#[derive(Default)]
pub struct Against {
    /// What is wrong with itself.
    pub itself: Vec<String>,
    /// What it needs that is missing here.
    pub here: Vec<String>,
    /// Roles that are to be made for it: nothing that stands against it.
    pub roles: Vec<String>,
}

// === impl Seen ===

impl Seen {
    /// Of one of those that could be looked at.
    pub fn against(&self, id: &str) -> Against {
        let of = |all: &BTreeMap<String, Vec<String>>| all.get(id).cloned().unwrap_or_default();
        Against { itself: of(&self.itself), here: of(&self.lacking), roles: of(&self.roles) }
    }
}

// === impl Against ===

impl Against {
    /// All of it in one sentence, if anything.
    fn told(&self) -> Option<String> {
        let all: Vec<&str> = self.itself.iter().chain(&self.here).map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Reads the best backup against which nothing stands in full. One that has to be fetched is, where its turn comes.
///
/// # Errors
/// When none can be used, or what the engine says.
pub(super) async fn usable(cx: &mut Cx<'_>, frozen: &Frozen, seen: &Seen) -> Result<Candidates, Fault> {
    let mut ids: Vec<String> = Vec::new();
    let mut first = None;
    let mut roles = BTreeMap::new();
    for (i, entry) in frozen.candidates.iter().enumerate() {
        let is_fetched = stores::is_fetched(&cx.env.settings, frozen, entry);
        let why = if first.is_some() && is_fetched {
            None
        } else {
            match standing(cx, frozen, entry, seen, i).await? {
                Standing::Wait(wait) => return Ok(Candidates::Wait(Progress::Wait(wait))),
                Standing::Unread(fault) => Some(fault.message),
                Standing::Seen(against) => {
                    let why = against.told();
                    if !against.roles.is_empty() {
                        roles.insert(entry.id.clone(), against.roles);
                    }
                    why
                }
            }
        };
        let why = match (why, &first) {
            (None, None) => match examine(cx, frozen, entry, i).await? {
                Examined::Wait(wait) => return Ok(Candidates::Wait(Progress::Wait(wait))),
                Examined::Whole(manifest) => {
                    first = Some(manifest);
                    None
                }
                Examined::Unusable(fault) => Some(fault.message),
            },
            (why, _) => why,
        };
        match why {
            None => ids.push(entry.id.clone()),
            Some(why) => cx.remark(format!("backup {} cannot be used: {why}", entry.id)),
        }
    }
    match first {
        Some(first) => Ok(Candidates::Usable { ids, first, roles }),
        None => Err(Fault::failed(format!("no backup can be used: {}", cx.op.journal.remarks.join("; ")))),
    }
}

/// What is known of a backup without reading it in full.
pub enum Standing {
    /// Not yet.
    Wait(Wait),
    /// It cannot be looked at.
    Unread(JobFault),
    /// This stands against it, if anything.
    Seen(Against),
}

/// What stands against a backup of the plan, the `nth`; one that has to be fetched is fetched and looked at now.
///
/// # Errors
/// What the engine says.
pub async fn standing(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    entry: &Entry,
    seen: &Seen,
    nth: usize,
) -> Result<Standing, Fault> {
    if let Some(message) = seen.unread.get(&entry.id).cloned() {
        return Ok(Standing::Unread(JobFault { kind: FaultKind::Circumstance, message }));
    }
    if !stores::is_fetched(&cx.env.settings, frozen, entry) {
        return Ok(Standing::Seen(seen.against(&entry.id)));
    }
    let target = match stores::at_hand(cx, frozen, entry, &format!("f{nth}")).await? {
        Hand::Here(target) => *target,
        Hand::Wait(wait) => return Ok(Standing::Wait(wait)),
        Hand::Lost(fault) => return Ok(Standing::Unread(fault)),
    };
    let shelf = Shelf { target, entries: vec![entry] };
    let looked = match frozen.target.data {
        Data::Postgres => match look(cx, frozen, Some(&shelf), &format!("lookf{nth}")).await? {
            Look::Wait(wait) => return Ok(Standing::Wait(wait)),
            Look::Seen(found) => Ok((found.backups, found.lacking, found.missing_roles)),
            Look::Failed(fault) => Err(fault.message),
        },
        Data::Directory(_) => match directory::look_fetched(cx, frozen, &shelf, nth).await? {
            directory::Look::Wait(wait) => return Ok(Standing::Wait(wait)),
            directory::Look::Seen(found) => Ok((found.backups, found.lacking, BTreeMap::new())),
            directory::Look::Failed(why) => Err(why),
        },
        // Nobody can look into it.
        Data::Command(_) | Data::None => return Ok(Standing::Seen(Against::default())),
    };
    Ok(match looked {
        Ok((itself, lacking, roles)) => {
            let seen = Seen { itself, lacking, roles, ..Seen::default() };
            Standing::Seen(seen.against(&entry.id))
        }
        Err(why) => Standing::Unread(JobFault {
            kind: FaultKind::Circumstance,
            message: format!("it cannot be looked at in the staging volume: {why}"),
        }),
    })
}

/// What reading a backup in full came to.
pub enum Examined {
    /// Not yet.
    Wait(Wait),
    /// It is what was registered; this is its manifest.
    Whole(Box<Manifest>),
    /// It is not, or cannot be read.
    Unusable(JobFault),
}

/// Reads a backup of the plan, the `nth`, in full and compares it with what was registered, by one job of the current step.
///
/// # Errors
/// What the engine says.
pub async fn examine(cx: &mut Cx<'_>, frozen: &Frozen, entry: &Entry, nth: usize) -> Result<Examined, Fault> {
    let target = match stores::at_hand(cx, frozen, entry, &format!("f{nth}")).await? {
        Hand::Here(target) => target,
        Hand::Wait(wait) => return Ok(Examined::Wait(wait)),
        Hand::Lost(fault) => return Ok(Examined::Unusable(fault)),
    };
    let task = target.examine(entry.stored())?;
    let key = format!("read{nth}");
    let order = Order { key: &key, target: &target, task, store: Some(Access::Read), data: false };
    Ok(match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Examined::Wait(wait),
        Outcome::Done(report) => Examined::Whole(Box::new(examined(*report)?)),
        Outcome::Failed(fault) => Examined::Unusable(fault),
    })
}

/// What a look at the server came to.
pub enum Looked {
    /// Not yet.
    Wait(Progress),
    /// This.
    Seen {
        /// The server.
        inspection: Box<PgInspection>,
        /// The backups.
        seen: Seen,
    },
}

/// Looks at the server, the live database, and what stands against the backups of the plan, by a job for each store that
/// has some of them; changes nothing.
///
/// # Errors
/// When the server cannot be looked at, or what the engine says.
pub async fn inspect(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Looked, Fault> {
    let (shelves, mut unread) = stores::shelves(cx, frozen).await?;
    let mut found: Option<Box<PgInspection>> = None;
    for (nth, shelf) in shelves.iter().enumerate() {
        match look(cx, frozen, Some(shelf), &look_key(nth)).await? {
            Look::Wait(wait) => return Ok(Looked::Wait(Progress::Wait(wait))),
            Look::Seen(more) => match &mut found {
                None => found = Some(more),
                Some(found) => {
                    found.backups.extend(more.backups);
                    found.lacking.extend(more.lacking);
                    found.missing_roles.extend(more.missing_roles);
                }
            },
            Look::Failed(fault) => {
                let why = format!(
                    "it cannot be looked at in the store `{}`: {}",
                    shelf.target.store, fault.message
                );
                unread.extend(shelf.entries.iter().map(|e| (e.id.clone(), why.clone())));
            }
        }
    }
    let inspection = match found {
        Some(inspection) => inspection,
        None => match look(cx, frozen, None, BARE).await? {
            Look::Wait(wait) => return Ok(Looked::Wait(Progress::Wait(wait))),
            Look::Seen(inspection) => inspection,
            Look::Failed(fault) => {
                return Err(Fault::failed(format!("the server cannot be looked at: {}", fault.message)));
            }
        },
    };
    let PgInspection { backups, lacking, missing_roles, .. } = &*inspection;
    let (itself, lacking, roles) = (backups.clone(), lacking.clone(), missing_roles.clone());
    let seen = Seen { itself, lacking, unread, roles };
    Ok(Looked::Seen { inspection, seen })
}

/// The live database as preflight found it.
pub(super) fn inspected(op: &Operation) -> Option<PgInspection> {
    let jobs = &op.journal.step("preflight")?.jobs;
    let looks = (0..jobs.len()).map(look_key).chain([BARE.to_owned()]);
    looks.filter_map(|key| jobs.get(&key)?.report.as_deref()).find_map(|report| match report {
        Report::PgInspect(seen) => Some((**seen).clone()),
        _ => None,
    })
}

/// The key of the job that looks at the server without any store.
const BARE: &str = "bare";

fn look_key(nth: usize) -> String {
    if nth == 0 { "look".to_owned() } else { format!("look{nth}") }
}

/// How far one look is.
enum Look {
    Wait(Wait),
    Seen(Box<PgInspection>),
    Failed(JobFault),
}

async fn look(cx: &mut Cx<'_>, frozen: &Frozen, shelf: Option<&Shelf<'_>>, key: &str) -> Result<Look, Fault> {
    // What a drill has left behind goes the same way as what an earlier restore kept.
    let kept = frozen.kept.iter().map(|k| k.name.clone()).chain([drill::scratch_name(&frozen.target.name)]);
    let task = Task::PgInspect(PgInspect {
        connect: frozen.target.access.connect.clone(),
        database: frozen.target.database.clone(),
        backups: shelf.into_iter().flat_map(|s| s.entries.iter().map(|e| e.stored())).collect(),
        kept: kept.collect(),
        create_roles: roles::are_made(cx.op),
    });
    let target = shelf.map_or(&frozen.target, |s| &s.target);
    let order = Order { key, target, task, store: shelf.map(|_| Access::Read), data: true };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Look::Wait(wait)),
        Outcome::Failed(fault) => Ok(Look::Failed(fault)),
        Outcome::Done(report) => match *report {
            Report::PgInspect(inspection) => Ok(Look::Seen(inspection)),
            other => Err(unexpected(&other)),
        },
    }
}

/// Maps addresses to services: whoever has a task on a network of the database.
async fn known<'a>(cx: &Cx<'_>, frozen: &'a Frozen) -> Result<Known<'a>, Fault> {
    let services = cx.engine().services(&[]).await?;
    let ids: Vec<&str> = services.iter().map(|s| s.id.as_str()).collect();
    let mut addresses = BTreeMap::new();
    for task in cx.engine().tasks(&ids).await? {
        let name = services.iter().find(|s| s.id == task.service).map_or("", |s| s.name());
        for (_, address) in task.addresses {
            addresses.insert(address, name.to_owned());
        }
    }
    Ok(Known {
        addresses,
        clients: frozen.clients.iter().map(|c| c.name.as_str()).collect(),
        ignore: frozen.ignore.iter().map(String::as_str).collect(),
    })
}

/// An alert may not go on where a person has to decide; a person who asked has decided. Whoever approved what an earlier
/// look found is asked again about what is new.
fn act_on(cx: &mut Cx<'_>, judgement: Judgement) -> Result<Option<Progress>, Fault> {
    for remark in judgement.remarks {
        cx.remark(remark);
    }
    if !judgement.refuse.is_empty() {
        return Err(Fault::failed(judgement.refuse.join("; ")));
    }
    for reason in &judgement.approve {
        cx.remark(reason.clone());
    }
    let asked = cx.scratch::<Preflight>()?.asked;
    let approved = cx.op.journal.approved.is_some();
    let is_approved = |reason: &&String| approved && (asked.is_empty() || asked.contains(reason));
    let open: Vec<&str> = judgement.approve.iter().filter(|r| !is_approved(r)).map(String::as_str).collect();
    if open.is_empty() || !matches!(cx.op.intent.trigger, Trigger::Alert { .. }) {
        return Ok(None);
    }
    let why = open.join("; ");
    let out = Preflight { asked: judgement.approve, ..Preflight::default() };
    cx.record().out =
        serde_json::to_value(out).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
    Ok(Some(Progress::Approval { why }))
}
