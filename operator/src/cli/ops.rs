//! Operations: list, show, approve, cancel, retry, sweep; and letting alerts ask for restores again.

use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::drive::DriveArgs;
use super::failure::{Exit, Failure};
use super::follow::{Until, follow, view};
use super::out::Tone;
use super::progress::{Look, current, lines, state_tone, summary};
use super::session::Session;
use super::sweep::{self, SweepArgs};
use super::table::{Cell, Table};
use crate::http::view::OperationView;
use crate::notify;
use crate::operation::record::{Operation, State};
use crate::operation::report::Written;
use crate::operation::{clients, desk};
use crate::plan::words::{ago, clock, exact};
use crate::swarm::object::{Kind, Service};
use crate::triggers::intake;
use crate::triggers::port::AlertPort;

/// As many ended operations are listed.
const ENDED: usize = 20;

/// `ops`
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct OpsArgs {
    /// What to do with one; they are listed where nothing is said.
    #[command(subcommand)]
    pub command: Option<OpsCommand>,
    /// What to list.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `ops list`
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ListArgs {
    /// Only those of this service.
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// All that are kept, not only the open ones and the last 20.
    #[arg(short, long)]
    pub all: bool,
}

/// `ops …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum OpsCommand {
    /// List operations, the newest last.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one with all its steps.
    Show {
        /// Its id, or the beginning of it.
        id: String,
        /// Follow it until it comes to rest.
        #[arg(short, long)]
        follow: bool,
        /// Who drives it.
        #[command(flatten)]
        drive: DriveArgs,
    },
    /// Write up what one did, as Markdown: who asked for it and why, each step with its times, how long users could not work, what
    /// came of it and what there is to do. With `--output json`, its record.
    Report {
        /// Its id, or the beginning of it.
        id: String,
    },
    /// Let one that waits for approval go on.
    Approve(OneArgs),
    /// Ask one to go back and end.
    Cancel(OneArgs),
    /// Try the step again at which one is stuck.
    Retry(OneArgs),
    /// Let alerts restore a service again, after as many restores as its label allows: closes its circuit.
    Reset {
        /// The service, `stack_service`.
        service: String,
    },
    /// Remove what no operation owns any more: jobs, tickets, secrets, claims, pages.
    Sweep(SweepArgs),
}

/// `ops approve`, `cancel`, `retry`
#[derive(Clone, Debug, clap::Args)]
pub struct OneArgs {
    /// Its id, or the beginning of it.
    pub id: String,
    /// Do not follow it.
    #[arg(short, long, conflicts_with = "drive")]
    pub detach: bool,
    /// Who drives it.
    #[command(flatten)]
    pub drive: DriveArgs,
}

/// What `ops report` says to programs.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    operation: OperationView,
    /// How long users could not work, in seconds, where that is known.
    downtime_s: Option<f64>,
}

/// `skep ops`
pub(super) async fn ops(session: &Session, args: &OpsArgs) -> Result<Exit, Failure> {
    match &args.command {
        None => list(session, &args.list).await,
        Some(OpsCommand::List(args)) => list(session, args).await,
        Some(OpsCommand::Show { id, follow, drive }) => show(session, id, *follow, drive).await,
        Some(OpsCommand::Report { id }) => report(session, id).await,
        Some(OpsCommand::Approve(args)) => {
            let op = session.operation(&args.id).await?;
            let op = desk::approve(&session.engine, &op.id, &session.who).await?;
            go_on(session, &op, args).await
        }
        Some(OpsCommand::Cancel(args)) => {
            let op = session.operation(&args.id).await?;
            let op = desk::cancel(&session.engine, &op.id, &session.who).await?;
            go_on(session, &op, args).await
        }
        Some(OpsCommand::Retry(args)) => {
            let op = session.operation(&args.id).await?;
            let op = desk::retry(&session.engine, &op.id, session.now()).await?;
            go_on(session, &op, args).await
        }
        Some(OpsCommand::Reset { service }) => reset(session, service).await,
        Some(OpsCommand::Sweep(args)) => sweep::sweep(session, args).await,
    }
}

/// Closes the circuit of a service. Its history is kept also when the service itself is gone.
async fn reset(session: &Session, service: &str) -> Result<Exit, Failure> {
    let world = session.world().await?;
    let name = world.meant(service).map_or(service, Service::name);
    let now = session.now();
    let port = AlertPort { engine: session.engine.clone(), settings: Arc::default(), listening_since: now };
    let was_open = intake::reset_circuit(&port, name, now).await?;
    if session.out.is_json() {
        session.out.json_whole(&serde_json::json!({ "service": name, "was_open": was_open }));
    } else if was_open {
        session.out.say(format!("alerts may restore {name} again; what fires still is judged anew"));
    } else {
        session.meant(&world, service)?;
        session.out.say(format!("nothing to do: the circuit of {name} is not open"));
    }
    Ok(Exit::Fine)
}

/// Follows what was changed, unless that is not wanted. An operation that was to be cancelled and was has ended well.
async fn go_on(session: &Session, op: &Operation, args: &OneArgs) -> Result<Exit, Failure> {
    let driver = args.drive.start(session, std::slice::from_ref(&op.id))?;
    if args.detach {
        if session.out.is_json() {
            session.out.json_whole(&view(op));
        } else {
            let id = &op.id;
            session.out.aside(format!("stored; `{} ops show --follow {id}` follows it", session.command));
        }
        return Ok(Exit::Fine);
    }
    let wants_end = op.journal.cancel.is_some();
    let exit = follow(session, &op.id, Until::Rest, driver).await?;
    let cancelled = || async {
        let op = desk::find(&session.engine, &op.id).await?;
        Ok::<bool, Failure>(op.journal.state == State::Cancelled)
    };
    Ok(if wants_end && exit == Exit::Failed && cancelled().await? { Exit::Fine } else { exit })
}

async fn show(session: &Session, id: &str, follows: bool, drive: &DriveArgs) -> Result<Exit, Failure> {
    let op = session.operation(id).await?;
    if follows || drive.drive {
        let driver = drive.start(session, std::slice::from_ref(&op.id))?;
        return follow(session, &op.id, Until::Rest, driver).await;
    }
    let (out, op) = (&session.out, view(&op));
    if out.is_json() {
        out.json_whole(&op);
        return Ok(Exit::Fine);
    }
    let look = Look { paint: out.paint, width: if out.terminal { out.width } else { usize::MAX } };
    lines(&op, look, session.now()).iter().for_each(|line| out.say(line));
    let (at, since) = (clock(op.created, out.zone()), ago(op.created, session.now()));
    out.say(format!("\nasked for by {}, {at} ({since})", op.asked_by));
    for (what, by) in [("approved", &op.approved_by), ("cancelled", &op.cancelled_by)] {
        by.iter().for_each(|who| out.say(format!("{what} by {who}")));
    }
    summary(&op, look, &session.command, session.now()).iter().for_each(|line| out.say(line));
    Ok(Exit::Fine)
}

async fn report(session: &Session, id: &str) -> Result<Exit, Failure> {
    let op = session.operation(id).await?;
    let out = &session.out;
    if out.is_json() {
        let downtime_s = clients::downtime(&op).map(|away| away.as_secs_f64());
        out.json_whole(&Report { operation: view(&op), downtime_s });
        return Ok(Exit::Fine);
    }
    out.say(notify::report(&op, out.zone(), session.now())?);
    Ok(Exit::Fine)
}

/// An operation as `ops report` writes it up, for a store.
///
/// # Errors
/// Why it cannot be written, in a sentence.
pub fn written(op: &Operation) -> Result<Written, String> {
    let downtime_s = clients::downtime(op).map(|away| away.as_secs_f64());
    let json = serde_json::to_string_pretty(&Report { operation: view(op), downtime_s });
    let ended = op.journal.ended.unwrap_or(op.intent.created);
    let markdown = notify::report(op, &TimeZone::UTC, ended).map_err(|error| error.to_string())?;
    Ok(Written { markdown: markdown + "\n", json: json.map_err(|error| error.to_string())? + "\n" })
}

async fn list(session: &Session, args: &ListArgs) -> Result<Exit, Failure> {
    let configs = session.engine.configs(Kind::Operation, &[]).await?;
    let (mut operations, mut unreadable) = (Vec::new(), Vec::new());
    for config in &configs {
        match Operation::read(config) {
            Ok(op) => operations.push(op),
            Err(why) => unreadable.push(why.to_string()),
        }
    }
    operations.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(service) = &args.service {
        let end = format!("_{service}");
        let is_meant = |name: &str| name == service || name.ends_with(&end);
        operations.retain(|op| op.intent.services().any(|(name, _)| is_meant(name)));
    }
    let hidden = if args.all { 0 } else { trim(&mut operations) };
    let views: Vec<OperationView> = operations.iter().map(view).collect();
    if session.out.is_json() {
        session.out.json_whole(&views);
        return Ok(Exit::Fine);
    }
    tabulate(session, &views);
    if hidden > 0 {
        session.out.aside(format!("{hidden} older ones: --all"));
    }
    unreadable.iter().for_each(|why| session.out.aside(format!("mind: {why}")));
    Ok(Exit::Fine)
}

/// Leaves the open ones and the newest that have ended. Answers how many it took away.
fn trim(operations: &mut Vec<Operation>) -> usize {
    let ended = operations.iter().filter(|op| op.journal.state.is_terminal()).count();
    let mut hide = ended.saturating_sub(ENDED);
    let hidden = hide;
    operations.retain(|op| {
        let hides = hide > 0 && op.journal.state.is_terminal();
        hide -= usize::from(hides);
        !hides
    });
    hidden
}

fn tabulate(session: &Session, views: &[OperationView]) {
    let now = session.now();
    let mut table = Table::new(&["ID", "KIND", "SERVICE", "STATE", "STEP", "ASKED FOR", "AGO", "TOOK", "BY"]);
    for op in views {
        let step = current(op);
        let step = if step.is_empty() { step } else { format!("{step} {}%", op.percent()) };
        table.row(vec![
            op.id.as_str().into(),
            op.kind.into(),
            op.service.as_str().into(),
            Cell::new(state_tone(op.state), op.state.as_str()),
            step.into(),
            clock(op.created, session.out.zone()).into(),
            ago(op.created, now).trim_end_matches(" ago").into(),
            op.ran(now).map(exact).unwrap_or_default().into(),
            Cell::new(Tone::Faint, &op.asked_by),
        ]);
    }
    match table.is_empty() {
        true => session.out.say("no operations"),
        false => session.out.say(table.render(session.out.paint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::record::Work;
    use crate::plan::testing::op;

    #[test]
    fn a_list_keeps_every_open_operation_and_the_newest_that_ended() {
        let time = |i: usize| format!("2026-03-{:02}T00:00:00Z", i + 1);
        let state = |i: usize| if i == 0 { State::Stuck } else { State::Succeeded };
        let mut all: Vec<_> = (0..24).map(|i| op("shop_db", Work::Backup, &time(i), state(i))).collect();
        let (first, last) = (all[0].id.clone(), all[23].id.clone());
        assert_eq!(trim(&mut all), 3);
        assert_eq!((all.len(), &all[0].id, &all[20].id), (21, &first, &last));
    }
}
