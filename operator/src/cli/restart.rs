//! Restarting services and stacks.

use super::failure::{Exit, Failure};
use super::operate::{AskArgs, Wish, ask};
use super::session::Session;
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
    /// Go on without what does not stop in time (unless it keeps files), over an update that is paused, and with services that
    /// nothing keeps on the node of their volumes.
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
        Wish::new(&self.name, Work::Restart { whole, manner, force, flush })
    }
}
