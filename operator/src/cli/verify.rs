//! Reading stored backups back: one operation a service.

use super::failure::{Exit, Failure};
use super::operate::{AskArgs, Wish, ask};
use super::session::Session;
use crate::operation::catalogue::Backup;
use crate::operation::record::Work;
use crate::plan::World;

/// `backups verify`
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// All backups of this service, or the one with this id; those of every service where nothing is said.
    #[arg(value_name = "SERVICE|BACKUP-ID")]
    pub what: Option<String>,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// `skep backups verify`
pub(super) async fn verify(session: &Session, args: &VerifyArgs) -> Result<Exit, Failure> {
    let world = session.world().await?;
    let backup = args.what.as_ref().and_then(|id| world.backups.iter().find(|b| b.entry.id == *id));
    let wishes = match (&args.what, backup) {
        (Some(id), Some(backup)) => {
            vec![Wish::new(&backup.entry.service, Work::Verify { backup: Some(id.clone()) })]
        }
        (Some(name), None) => vec![of_service(meant(session, &world, name)?)],
        (None, _) => {
            let (here, gone) = services(&world);
            for service in &gone {
                session.out.aside(format!(
                    "mind: {service} does not exist any more: nothing can read its backups in its place"
                ));
            }
            if here.is_empty() && gone.is_empty() {
                session.out.say("no backups");
            }
            here.iter().map(|service| of_service(service)).collect()
        }
    };
    let mut exit = Exit::Fine;
    for wish in wishes {
        // Each service on its own: one that is refused keeps no other from being read.
        match ask(session, wish, &args.ask).await {
            Ok(Exit::Fine) => {}
            Ok(Exit::Detached) => return Ok(Exit::Detached),
            Ok(other) => exit = other,
            Err(failure) if args.what.is_none() => {
                session.out.aside(failure.story());
                exit = failure.exit();
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(exit)
}

fn of_service(service: &str) -> Wish {
    Wish::new(service, Work::Verify { backup: None })
}

/// The service that is meant; a name that looks like an id is said to be none.
fn meant<'w>(session: &Session, world: &'w World, name: &str) -> Result<&'w str, Failure> {
    match session.meant(world, name) {
        Ok(service) => Ok(service.name()),
        Err(_) if name.starts_with(|c: char| c.is_ascii_digit()) => Err(Failure::refused_but(
            format!("there is no backup `{name}`"),
            format!("`{} backups` lists them", session.command),
        )),
        Err(failure) => Err(failure),
    }
}

/// Services that have backups: those that are there, and those that are not.
fn services(world: &World) -> (Vec<&str>, Vec<&str>) {
    let listed = world.backups.iter().filter(|b| b.removing.is_none());
    let mut names: Vec<&str> = listed.map(|b: &Backup| b.entry.service.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().partition(|name| world.service(name).is_some())
}
