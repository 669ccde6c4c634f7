//! Taking in what a store holds: one operation a service.

use super::drive::DriveArgs;
use super::failure::{Exit, Failure};
use super::operate::{AskArgs, Wish, asked};
use super::out::Tone;
use super::session::Session;
use super::table::{Cell, Table};
use crate::operation::desk;
use crate::operation::import::{Listing, Taken};
use crate::operation::record::{OpId, State, Work};
use crate::plan::World;
use crate::plan::words::{clock, size};
use crate::policy::Policies;

/// `backups import`
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// Name of the store, as the operator knows it.
    pub store: String,
    /// Only for this service; for every one with data where nothing is said.
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Take the backups of a service that had this name.
    #[arg(long, value_name = "NAME", requires = "service")]
    pub from: Option<String>,
    /// Take the dumps of a directory of the store that was filled by hand: `MANIFEST.txt` with a line `file|size|sha256` for
    /// each file. They are copied; the directory stays as it is.
    #[arg(long, value_name = "DIRECTORY", requires = "service", conflicts_with_all = ["from", "quick"])]
    pub layout: Option<String>,
    /// Leave the engine's own reading out; every file is read and hashed all the same.
    #[arg(long)]
    pub quick: bool,
    /// Only list what would be taken in.
    #[arg(long)]
    pub dry_run: bool,
    /// Ask for it and do not wait.
    #[arg(short, long, conflicts_with = "drive")]
    pub detach: bool,
    /// Who drives it.
    #[command(flatten)]
    pub drive: DriveArgs,
}

/// `skep backups import`
pub(super) async fn import(session: &Session, args: &ImportArgs) -> Result<Exit, Failure> {
    let world = session.world().await?;
    let services = match &args.service {
        Some(name) => vec![session.meant(&world, name)?.name().to_owned()],
        None => with_data(&world),
    };
    if services.is_empty() {
        return Err(Failure::refused_but(
            "no service has the label skep.data, so there is none whose backups could be taken in",
            "deploy the service first, scaled to zero if need be: its image reads the store",
        ));
    }
    let mut exit = Exit::Fine;
    for service in services {
        let work = Work::Import {
            store: args.store.clone(),
            from: args.from.clone(),
            quick: args.quick,
            layout: args.layout.clone(),
            dry_run: args.dry_run,
        };
        // The dry run is an operation too: only a job can look into the store.
        let ask = AskArgs { dry_run: false, detach: args.detach, drive: args.drive.clone() };
        match asked(session, Wish::new(&service, work), &ask).await? {
            (_, Exit::Detached) => return Ok(Exit::Detached),
            (Some(id), ended) if !args.detach => {
                let found = tell(session, args, &id).await?;
                exit = [ended, found].into_iter().find(|e| *e != Exit::Fine).unwrap_or(exit);
            }
            (_, ended) => exit = if ended == Exit::Fine { exit } else { ended },
        }
    }
    Ok(exit)
}

/// Services that say what data they hold.
fn with_data(world: &World) -> Vec<String> {
    let policies = Policies::of(&world.services);
    let with_data = policies.iter().filter(|(_, p)| p.policy.enabled && p.policy.data.is_some());
    with_data.map(|(name, _)| name.to_owned()).collect()
}

/// Says what became of each backup that the store holds. Something that cannot be taken in is no success.
async fn tell(session: &Session, args: &ImportArgs, id: &OpId) -> Result<Exit, Failure> {
    let op = desk::find(&session.engine, id).await?;
    let out = |step: &str| op.journal.step(step).map(|r| r.out.clone()).unwrap_or_default();
    let Ok(listing) = serde_json::from_value::<Listing>(out("scan")) else { return Ok(Exit::Fine) };
    let taken: Taken = serde_json::from_value(out("take")).unwrap_or_default();
    // A directory filled by hand holds much that is no database: that is listed, and no failure.
    let is_flawed = (args.layout.is_none() && !listing.flawed.is_empty()) || !taken.refused.is_empty();
    let exit = if is_flawed { Exit::Failed } else { Exit::Fine };
    if session.out.is_json() {
        return Ok(exit);
    }
    let mut table = Table::new(&["ID", "SERVICE", "TAKEN", "SIZE", "ENGINE", "IMPORT"]);
    for listed in &listing.new {
        let refused = taken.refused.iter().find(|f| f.id == listed.id);
        let was_taken = op.journal.state == State::Succeeded && taken.taken.contains(&listed.id);
        let what = match refused {
            Some(flaw) => Cell::new(Tone::Bad, format!("no: {}", flaw.why)),
            None if was_taken => Cell::new(Tone::Good, "registered"),
            None => Cell::new(Tone::Mind, "not yet"),
        };
        table.row(vec![
            listed.id.as_str().into(),
            op.intent.service.as_str().into(),
            clock(listed.taken, session.out.zone()).into(),
            size(listed.size).into(),
            listed.engine.as_str().into(),
            what,
        ]);
    }
    for flaw in &listing.flawed {
        let service = op.intent.service.as_str().into();
        let why = Cell::new(Tone::Bad, format!("no: {}", flaw.why));
        table.row(vec![flaw.id.as_str().into(), service, "".into(), "".into(), "".into(), why]);
    }
    if !table.is_empty() {
        session.out.say(table.render(session.out.paint));
    }
    if listing.known > 0 {
        session.out.say(format!("{} registered already", listing.known));
    }
    Ok(exit)
}
