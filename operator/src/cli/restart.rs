//! Restarting services and stacks.

use std::time::Duration;

use super::failure::{Exit, Failure};
use super::operate::{AskArgs, Wish, ask};
use super::session::Session;
use super::settings::positive;
use crate::operation::record::{Manner, Work};

/// `restart`
#[derive(Clone, Debug, clap::Args)]
pub struct RestartArgs {
    /// What restarts.
    #[command(flatten)]
    pub what: RestartWhat,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What restarts, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct RestartWhat {
    /// The service, `stack_service`, or a whole stack.
    #[arg(value_name = "SERVICE|STACK")]
    pub name: String,
    /// Without a stop: the tasks of each service are replaced as it runs.
    #[arg(long)]
    pub rolling: bool,
    /// With a stop, also what could be replaced as it runs.
    #[arg(long, conflicts_with = "rolling")]
    pub stop: bool,
    /// Wait until the checks pass that are asked before (`skep.check.<name>.phase=before`), at the most so long: 10 minutes
    /// where nothing is said.
    #[arg(long, value_name = "DURATION", value_parser = positive, num_args = 0..=1, require_equals = true,
        default_missing_value = "10m")]
    pub wait: Option<Duration>,
    /// Go on without what does not stop in time (unless it keeps files), over an update that is paused, with services that
    /// nothing keeps on the node of their volumes, and without the checks that are asked before.
    #[arg(long)]
    pub force: bool,
    /// Empty these Redis caches while what uses them is stopped.
    #[arg(long, value_name = "CACHE,…", value_delimiter = ',', conflicts_with = "rolling")]
    pub flush: Vec<String>,
}

/// `skep restart`
pub(super) async fn restart(session: &Session, args: &RestartArgs) -> Result<Exit, Failure> {
    ask(session, args.what.wish(), &args.ask).await
}

// === impl RestartWhat ===

impl RestartWhat {
    pub(super) fn wish(&self) -> Wish {
        let manner = match (self.rolling, self.stop) {
            (true, _) => Manner::Rolling,
            (false, true) => Manner::Stopped,
            (false, false) => Manner::Fitting,
        };
        // Whether the name is that of a stack shows when the Swarm was read.
        let (whole, force, flush) = (false, self.force, self.flush.clone());
        let wait_s = self.wait.map(|wait| wait.as_secs());
        Wish::new(&self.name, Work::Restart { whole, manner, force, flush, wait_s })
    }
}
