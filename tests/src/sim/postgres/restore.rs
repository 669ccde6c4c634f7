//! Restore, in-place restore and swap, as the runner does them.

use std::time::Duration;

use skep_runner::Report;
use skep_runner::task::{PgInPlace, PgRestore, PgSwap};

use super::inspect::size_of;
use super::job::{Failure, Next, PgJob, Worked};
use super::server::{Server, Standing};
use super::store::sha256;
use super::{Content, World};
use crate::sim::workload::View;

/// How long clients may take to leave by themselves.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

// === impl PgJob ===

impl PgJob {
    pub(super) fn restore(&mut self, world: &mut World, view: &View<'_>, task: &PgRestore) -> Worked {
        let PgRestore { connect, stored, live, side } = task;
        if !side.starts_with("skep_") || side.len() > 63 {
            return Err(Failure::refused(format!("`{side}` is not the name of a database of Skep")));
        }
        let (manifest, content) = self.load(world, stored)?;
        let pace = world.pace.load;
        let (server, wait) = self.locked(world, view, connect)?;
        if let Some(wait) = wait {
            return Ok(wait);
        }
        let mut needed = manifest.database.iter().flat_map(|d| &d.roles);
        if let Some(role) = needed.find(|role| !server.roles.contains(role)) {
            return Err(Failure::barred(format!("role \"{role}\" does not exist")));
        }
        let found = server.databases.get(live).map(|d| d.properties.clone());
        if self.phase == 0 {
            server.drop(side)?;
            let wanted = found.or(manifest.database);
            let unknown =
                || Failure::refused("neither the live database nor the manifest tells the properties");
            server.create_closed(side, wanted.ok_or_else(unknown)?);
            self.since = Some(view.at);
            return Ok(Next::More("restore", pace));
        }
        if let Some(more) = fill(server, side, &content, self.phase, pace)? {
            return Ok(more);
        }
        server.allow(side, true);
        let side = server.named(side).expect("it was filled just now");
        let seconds = self.since.map_or(0.0, |since| (view.at - since).as_secs_f64());
        let live = server.named(live);
        Ok(Next::Done(Box::new(Report::PgRestore { live, side, size: size_of(&content), seconds })))
    }

    pub(super) fn in_place(&mut self, world: &mut World, view: &View<'_>, task: &PgInPlace) -> Worked {
        let PgInPlace { connect, stored, live, properties } = task;
        let (_, content) = self.load(world, stored)?;
        let unfinished = format!("skep_in_place_{}", &sha256(live.as_bytes())[..12]);
        let pace = world.pace.load;
        let (server, wait) = self.locked(world, view, connect)?;
        if let Some(wait) = wait {
            return Ok(wait);
        }
        match self.phase {
            0 => {
                server.drop(&unfinished)?;
                server.drop(live)?;
                return Ok(Next::More("restore", pace));
            }
            1 => {
                server.create_closed(&unfinished, properties.clone());
                return Ok(Next::More("restore", pace));
            }
            _ => {}
        }
        if let Some(more) = fill(server, &unfinished, &content, self.phase - 1, pace)? {
            return Ok(more);
        }
        server.allow(&unfinished, true);
        server.rename_one(&unfinished, live);
        let live = server.named(live).expect("it was renamed just now");
        Ok(Next::Done(Box::new(Report::PgInPlace { live })))
    }

    pub(super) fn swap(&mut self, world: &mut World, view: &View<'_>, task: &PgSwap) -> Worked {
        let short = world.pace.short;
        let (server, wait) = self.locked(world, view, &task.connect)?;
        if let Some(wait) = wait {
            return Ok(wait);
        }
        let done =
            |ms: u128| Next::Done(Box::new(Report::PgSwap { fenced_ms: u64::try_from(ms).unwrap_or(0) }));
        if server.standing(task)? == Standing::After {
            if task.live.is_some() {
                server.allow(&task.away, false);
            }
            server.allow(&task.name, true);
            return Ok(done(0));
        }
        let oids: Vec<u32> = task.live.iter().chain([&task.new]).map(|d| d.oid).collect();
        let since = *self.since.get_or_insert(view.at);
        if self.phase == 0 {
            if task.live.is_some() {
                server.allow(&task.name, false);
            }
            server.allow(&task.new.name, false);
            return Ok(Next::More("fence", short));
        }
        let left = server.sessions.values().any(|s| oids.contains(&s.database));
        if left && !task.end_sessions && view.at - since < LEAVE_WITHIN {
            return Ok(Next::Again(short));
        }
        server.end_sessions(&oids);
        server.rename(task);
        Ok(done((view.at - since).as_millis()))
    }
}

/// A stretch of loading: half of the tables, then all of them, then it is whole.
fn fill(
    server: &mut Server,
    name: &str,
    content: &Content,
    phase: u32,
    pace: Duration,
) -> Result<Option<Next>, Failure> {
    let gone = || Failure::unready(format!("database \"{name}\" does not exist"));
    let database = server.databases.get_mut(name).ok_or_else(gone)?;
    let half = content.len().div_ceil(2);
    match phase {
        1 => database.content = content.iter().take(half).map(|(t, n)| (t.clone(), *n)).collect(),
        _ => database.content.clone_from(content),
    }
    database.whole = phase > 1;
    Ok((phase == 1).then_some(Next::More("restore", pace)))
}
