//! Giving a service another image.

use std::time::Duration;

use super::failure::{Exit, Failure};
use super::operate::{AskArgs, Wish, ask};
use super::session::Session;
use super::settings::positive;
use crate::operation::record::Work;

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
    /// The service, `stack_service`.
    pub service: String,
    /// The new image. One with a digest is the same on every node and for good; a tag may be moved.
    #[arg(long, value_name = "REF")]
    pub image: String,
    /// How long it is watched for red flags, as in `5m`; otherwise as `skep.update.monitor` says.
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub monitor: Option<Duration>,
    /// Wait until the checks pass that are asked before (`skep.check.<name>.phase=before`), at the most so long: 10 minutes
    /// where nothing is said.
    #[arg(long, value_name = "DURATION", value_parser = positive, num_args = 0..=1, require_equals = true,
        default_missing_value = "10m")]
    pub wait: Option<Duration>,
    /// Also to an image that went back before, over an update that is paused, of a service that nothing keeps on the node of its
    /// volumes, and without the checks that are asked before.
    #[arg(long)]
    pub force: bool,
}

/// `skep update`
pub(super) async fn update(session: &Session, args: &UpdateArgs) -> Result<Exit, Failure> {
    ask(session, args.what.wish(), &args.ask).await
}

// === impl UpdateWhat ===

impl UpdateWhat {
    pub(super) fn wish(&self) -> Wish {
        // At least a second: nothing is watched for less.
        let monitor_s = self.monitor.map(|monitor| monitor.as_secs().max(1));
        let (image, force, wait_s) = (self.image.clone(), self.force, self.wait.map(|wait| wait.as_secs()));
        Wish::new(&self.service, Work::Update { image, monitor_s, force, wait_s })
    }
}
