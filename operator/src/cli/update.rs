//! Giving a service another image, or several theirs as one.

use std::time::Duration;

use super::failure::{Exit, Failure};
use super::operate::{AskArgs, Wish, ask};
use super::session::Session;
use super::settings::positive;
use crate::operation::record::{Also, Work};
use crate::operation::update::together;
use crate::plan::World;
use crate::swarm::object::Service;
use crate::swarm::spec::Reference;

/// `update`
#[derive(Clone, Debug, clap::Args)]
pub struct UpdateArgs {
    /// What is updated.
    #[command(flatten)]
    pub what: UpdateWhat,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What is updated, and to what.
#[derive(Clone, Debug, clap::Args)]
pub struct UpdateWhat {
    /// The service, `stack_service`. Several are updated as one: all of them run their new images in the end, or all are as
    /// before. An image of its own is written as `stack_service=image:2`. Of a stack: its services that have opted in and run
    /// another image of the same repository.
    #[arg(value_name = "SERVICE[=IMAGE]|STACK", required = true)]
    pub names: Vec<String>,
    /// The new image of all that name none. One with a digest is the same on every node and for good; a tag may be moved.
    #[arg(long, value_name = "REF")]
    pub image: Option<String>,
    /// How long it is watched for red flags, as in `5m`; otherwise as `skep.update.monitor` says.
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub monitor: Option<Duration>,
    /// Wait until the checks pass that are asked before (`skep.check.<name>.phase=before`), at the most so long: 10 minutes
    /// where nothing is said.
    #[arg(long, value_name = "DURATION", value_parser = positive, num_args = 0..=1, require_equals = true,
        default_missing_value = "10m")]
    pub wait: Option<Duration>,
    /// Also to an image that went back before, over an update that is paused, of a service that nothing keeps on the node of its
    /// volumes, of several of which one would not go back, and without the checks that are asked before.
    #[arg(long)]
    pub force: bool,
}

/// `skep update`
pub(super) async fn update(session: &Session, args: &UpdateArgs) -> Result<Exit, Failure> {
    ask(session, args.what.wish()?, &args.ask).await
}

/// The services that a person means by an update: its first one, and the work with all the others by their full names. A stack
/// stands for those of its services that run another image of the same repository.
pub(super) fn meant<'w>(
    session: &Session,
    world: &'w World,
    name: &str,
    work: &mut Work,
) -> Result<&'w Service, Failure> {
    let Work::Update { image, also, .. } = work else { return session.meant(world, name) };
    let is_stack = world.service(name).is_none() && world.stacks().contains(name);
    if also.is_empty() && is_stack {
        let found = together::of_stack(&world.services, name, image);
        if let [first, others @ ..] = found.as_slice() {
            let with = |s: &&Service| Also {
                service: s.name().to_owned(),
                service_id: s.id.clone(),
                image: image.clone(),
            };
            *also = others.iter().map(with).collect();
            return Ok(first);
        }
        return world.meant(name).ok_or_else(|| {
            let repository = Reference::of(image).repository();
            Failure::refused_but(
                format!("no service of stack {name} that has opted in runs another image of `{repository}`"),
                format!("`{} update {name}_<service> --image {image}` names one", session.command),
            )
        });
    }
    for other in also.iter_mut() {
        let found = session.meant(world, &other.service)?;
        other.service = found.name().to_owned();
        other.service_id.clone_from(&found.id);
    }
    session.meant(world, name)
}

// === impl UpdateWhat ===

impl UpdateWhat {
    pub(super) fn wish(&self) -> Result<Wish, Failure> {
        let mut also = Vec::new();
        for text in &self.names {
            let (name, own) = match text.split_once('=') {
                Some((name, image)) => (name, Some(image)),
                None => (text.as_str(), None),
            };
            let image = own.or(self.image.as_deref()).filter(|image| !image.is_empty()).ok_or_else(|| {
                Failure::refused(format!(
                    "{name} gets no image: `{name}=image:2`, or `--image image:2` for all"
                ))
            })?;
            also.push(Also { service: name.to_owned(), service_id: String::new(), image: image.to_owned() });
        }
        if also.is_empty() {
            return Err(Failure::refused("nothing is named that could be updated"));
        }
        let Also { service, image, .. } = also.remove(0);
        // At least a second: nothing is watched for less.
        let monitor_s = self.monitor.map(|monitor| monitor.as_secs().max(1));
        let (force, wait_s) = (self.force, self.wait.map(|wait| wait.as_secs()));
        Ok(Wish::new(&service, Work::Update { image, monitor_s, force, wait_s, also }))
    }
}
