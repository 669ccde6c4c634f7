//! Restore points: taking one, listing them, removing one.

use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::operate::{AskArgs, Wish, ask};
use super::out::Tone;
use super::session::Session;
use super::table::{Cell, Table};
use crate::operation::catalogue::Backup;
use crate::operation::points::{Head, Named, Purpose};
use crate::operation::record::{OpId, Work};
use crate::operation::{desk, points};
use crate::plan::World;
use crate::plan::words::{ago, clock, list, size};
use crate::swarm::object::Kind;

/// `point`
#[derive(Clone, Debug, clap::Args)]
pub struct PointArgs {
    /// What to take a point of.
    #[command(flatten)]
    pub what: PointWhat,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What to take a point of.
#[derive(Clone, Debug, clap::Args)]
pub struct PointWhat {
    /// The stack.
    pub stack: String,
    /// Specs and configs only: no data is backed up.
    #[arg(long)]
    pub without_data: bool,
}

/// `points`
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PointsArgs {
    /// What to do with one; they are listed where nothing is said.
    #[command(subcommand)]
    pub command: Option<PointsCommand>,
    /// Only those of this stack.
    pub stack: Option<String>,
}

/// `points …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PointsCommand {
    /// Remove one from the Swarm. Its backups are left to the retention of their services.
    Remove {
        /// The restore point, or an unambiguous beginning of its id.
        point: String,
    },
}

/// One point, as JSON: names, never a spec, an option of a volume, or the data of a config (S15).
#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: &'a OpId,
    stack: &'a str,
    taken: Timestamp,
    purpose: Purpose,
    services: Vec<Member<'a>>,
    configs: Vec<&'a str>,
    secrets: &'a [Named],
    networks: Vec<&'a str>,
    volumes: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct Member<'a> {
    name: &'a str,
    image: &'a str,
    engine: Option<&'a str>,
    backup: Option<&'a str>,
    /// Why its data cannot come back.
    lacks: Option<String>,
}

/// `skep point`
pub(super) async fn point(session: &Session, args: &PointArgs) -> Result<Exit, Failure> {
    ask(session, args.what.wish(), &args.ask).await
}

// === impl PointWhat ===

impl PointWhat {
    pub(super) fn wish(&self) -> Wish {
        Wish::new(&self.stack, Work::Point { without_data: self.without_data })
    }
}

/// `skep points`
pub(super) async fn points(session: &Session, args: &PointsArgs) -> Result<Exit, Failure> {
    if let Some(PointsCommand::Remove { point }) = &args.command {
        return remove(session, point).await;
    }
    let there = session.engine.configs(Kind::Point, &[]).await?.len();
    let world = session.world().await?;
    let unreadable = there.saturating_sub(world.points.len());
    let heads = world.points.iter().map(|p| &p.head);
    let heads: Vec<&Head> = heads.filter(|h| args.stack.as_ref().is_none_or(|s| *s == h.stack)).collect();
    let shown: Vec<Shown<'_>> = heads.iter().map(|head| shown(&world, head)).collect();
    let lacking: Vec<(&OpId, &str, &str)> = shown
        .iter()
        .flat_map(|s| s.services.iter().filter_map(|m| Some((s.id, m.name, m.lacks.as_deref()?))))
        .collect();
    if session.out.is_json() {
        session.out.json_whole(&shown);
    } else if heads.is_empty() {
        session.out.say("no restore points");
    } else {
        session.out.say(table(session, &world, &heads).render(session.out.paint));
    }
    for (id, service, why) in &lacking {
        session.out.aside(format!("mind: the data of {service} in {id} cannot come back: {why}"));
    }
    if unreadable > 0 {
        session.out.aside(format!("mind: {unreadable} cannot be read; a newer Skep may have made them"));
    }
    Ok(if lacking.is_empty() { Exit::Fine } else { Exit::Failed })
}

/// The point that a person means: its id, or an unambiguous beginning of it.
///
/// # Errors
/// When there is none, or more than one.
pub(super) async fn meant(session: &Session, text: &str) -> Result<Head, Failure> {
    let all = points::list(&session.engine, None).await?;
    let mut found =
        all.into_iter().map(|p| p.head).filter(|p| !text.is_empty() && p.id.as_str().starts_with(text));
    match (found.next(), found.next()) {
        (Some(head), None) => Ok(head),
        (Some(_), Some(_)) => Err(Failure::refused(format!("several restore points begin with `{text}`"))),
        (None, _) => Err(Failure::refused_but(
            format!("there is no restore point `{text}`"),
            format!("`{} points` lists them", session.command),
        )),
    }
}

/// `skep points remove`
async fn remove(session: &Session, text: &str) -> Result<Exit, Failure> {
    let head = meant(session, text).await?;
    let operations = desk::list(&session.engine).await?;
    if let Some(op) = operations.iter().find(|op| points::uses(op, &head.id)) {
        return Err(Failure::refused_but(
            format!("operation {} ({}) uses restore point {}", op.id, op.title(), head.id),
            format!("`{} ops show {}` tells how far it is", session.command, op.id),
        ));
    }
    points::remove(&session.engine, &head.id).await?;
    if session.out.is_json() {
        session.out.json_whole(&serde_json::json!({ "removed": head.id }));
    } else {
        session.out.say(format!("{} is removed", head.id));
        let backups: Vec<&str> = head.backups().collect();
        if !backups.is_empty() {
            let backups = list(&backups);
            session
                .out
                .aside(format!("its data stays until the retention of each service lets it go: {backups}"));
        }
    }
    Ok(Exit::Fine)
}

fn shown<'a>(world: &World, head: &'a Head) -> Shown<'a> {
    let member = |m: &'a points::Member| Member {
        name: &m.name,
        image: &m.image,
        engine: m.data.as_ref().map(|d| d.engine.as_str()),
        backup: m.data.as_ref().map(|d| d.backup.as_str()),
        lacks: m.data.as_ref().and_then(|d| points::lacks(&world.backups, &d.backup)),
    };
    Shown {
        id: &head.id,
        stack: &head.stack,
        taken: head.taken,
        purpose: head.purpose,
        services: head.services.iter().map(member).collect(),
        configs: head.configs.iter().map(|c| c.name.as_str()).collect(),
        secrets: &head.secrets,
        networks: head.networks.iter().map(|n| n.name.as_str()).collect(),
        volumes: head.volumes.iter().map(|v| v.name.as_str()).collect(),
    }
}

fn backup<'w>(world: &'w World, id: &str) -> Option<&'w Backup> {
    world.backups.iter().find(|b| b.entry.id == id)
}

fn table(session: &Session, world: &World, heads: &[&Head]) -> Table {
    let now = session.now();
    let mut table = Table::new(&["ID", "STACK", "TAKEN", "AGE", "SERVICES", "CONFIGS", "DATA", "PURPOSE"]);
    for head in heads {
        let backups: Vec<&str> = head.backups().collect();
        let bytes = backups.iter().filter_map(|id| backup(world, id)).map(|b| b.entry.size).sum();
        let bad = backups.iter().filter(|id| points::lacks(&world.backups, id).is_some()).count();
        let data = match (backups.len(), bad) {
            (0, _) => Cell::new(Tone::Mind, "none"),
            (n, 0) => Cell::from(format!("{n} of {}", size(bytes)).as_str()),
            (n, bad) => Cell::new(Tone::Bad, format!("{bad} of {n} cannot come back")),
        };
        table.row(vec![
            head.id.as_str().into(),
            head.stack.as_str().into(),
            clock(head.taken, session.out.zone()).into(),
            ago(head.taken, now).trim_end_matches(" ago").into(),
            head.services.len().to_string().into(),
            head.configs.len().to_string().into(),
            data,
            match head.purpose {
                Purpose::Regular => "regular".into(),
                Purpose::Safety => "safety".into(),
            },
        ]);
    }
    table
}
