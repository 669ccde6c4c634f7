//! Removing what no operation owns any more.

use super::failure::{Exit, Failure};
use super::session::Session;
use super::table::Table;
use crate::plan::sweep::{SWEPT, What};
use crate::plan::{self, Objects, Orphan};
use crate::swarm::error::Error;
use crate::swarm::object::{KIND, Kind, OP, Service};

/// `ops sweep`
#[derive(Clone, Debug, clap::Args)]
pub struct SweepArgs {
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
}

/// `skep ops sweep`
pub(super) async fn sweep(session: &Session, args: &SweepArgs) -> Result<Exit, Failure> {
    let orphans = plan::sweep(&objects(session).await?);
    let mut failed = 0;
    for orphan in orphans.iter().filter(|_| !args.dry_run) {
        if let Err(error) = remove(session, orphan).await {
            failed += 1;
            session.out.aside(format!("{} stays: {error}", orphan.name));
        }
    }
    if session.out.is_json() {
        session.out.json_whole(&orphans);
    } else {
        show(session, &orphans, args.dry_run);
    }
    Ok(if failed == 0 { Exit::Fine } else { Exit::Failed })
}

/// Objects first, operations last: see [`plan::sweep`].
async fn objects(session: &Session) -> Result<Objects, Failure> {
    let engine = &session.engine;
    let services = engine.services(&[]).await?;
    let secrets = engine.secrets(&[(KIND, Kind::Ticket.as_str())]).await?;
    let mut configs = Vec::new();
    for kind in SWEPT {
        configs.extend(engine.configs(kind, &[]).await?);
    }
    let operations = engine.configs(Kind::Operation, &[]).await?;
    Ok(Objects { services, secrets, configs, operations })
}

async fn remove(session: &Session, orphan: &Orphan) -> Result<(), Error> {
    match orphan.what {
        What::Service => session.engine.remove_service(&orphan.id).await,
        What::Secret => session.engine.remove_secret(&orphan.id).await,
        What::Config => session.engine.remove_config(&orphan.id).await,
    }
}

fn show(session: &Session, orphans: &[Orphan], dry_run: bool) {
    if orphans.is_empty() {
        session.out.say("nothing to sweep");
        return;
    }
    let mut table = Table::new(&["KIND", "NAME", "WHY"]);
    for orphan in orphans {
        let kind = match orphan.what {
            What::Service => "service",
            What::Secret => "secret",
            What::Config => "config",
        };
        table.row(vec![kind.into(), orphan.name.as_str().into(), orphan.why.as_str().into()]);
    }
    session.out.say(table.render(session.out.paint));
    if dry_run {
        session.out.aside("nothing was removed (--dry-run)");
    }
}

/// Services of people that still show a page of Skep's, with the operation that put it there.
pub(super) fn still_paged(services: &[Service]) -> Vec<(&Service, &str)> {
    services
        .iter()
        .filter(|s| s.spec["Labels"].get(OP).is_none())
        .filter_map(|s| Some((s, s.spec["TaskTemplate"]["ContainerSpec"]["Labels"][OP].as_str()?)))
        .collect()
}
