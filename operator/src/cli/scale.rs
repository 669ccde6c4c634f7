//! Putting services to sleep and waking them.

use super::failure::{Exit, Failure};
use super::operate::{AskArgs, Wish, ask};
use super::session::Session;
use crate::operation::record::{Above, Work};

/// `scale`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ScaleCommand {
    /// Put a service to sleep: scale it to zero, and write down what it goes back to.
    Down(ScaleDown),
    /// Wake a service, and before it what it needs.
    Up(ScaleUp),
}

/// `scale down`
#[derive(Clone, Debug, clap::Args)]
pub struct ScaleDown {
    /// What falls asleep.
    #[command(flatten)]
    pub what: SleepWhat,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// `scale up`
#[derive(Clone, Debug, clap::Args)]
pub struct ScaleUp {
    /// What wakes.
    #[command(flatten)]
    pub what: WakeWhat,
    /// How it is asked for.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What falls asleep.
#[derive(Clone, Debug, clap::Args)]
pub struct SleepWhat {
    /// The service, `stack_service`.
    pub service: String,
    /// Also what needs it and is awake.
    #[arg(long)]
    pub with_dependents: bool,
    /// Although what needs it stays awake.
    #[arg(long, conflicts_with = "with_dependents")]
    pub alone: bool,
}

/// What wakes.
#[derive(Clone, Debug, clap::Args)]
pub struct WakeWhat {
    /// The service, `stack_service`.
    pub service: String,
}

/// `plan scale`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PlanScale {
    /// What putting a service to sleep would do.
    Down(SleepWhat),
    /// What waking it would do.
    Up(WakeWhat),
}

/// `skep scale`
pub(super) async fn scale(session: &Session, command: &ScaleCommand) -> Result<Exit, Failure> {
    match command {
        ScaleCommand::Down(args) => ask(session, args.what.wish(), &args.ask).await,
        ScaleCommand::Up(args) => ask(session, args.what.wish(), &args.ask).await,
    }
}

// === impl PlanScale ===

impl PlanScale {
    pub(super) fn wish(&self) -> Wish {
        match self {
            PlanScale::Down(what) => what.wish(),
            PlanScale::Up(what) => what.wish(),
        }
    }
}

// === impl SleepWhat ===

impl SleepWhat {
    fn wish(&self) -> Wish {
        let above = match (self.with_dependents, self.alone) {
            (true, _) => Above::Along,
            (false, true) => Above::Alone,
            (false, false) => Above::Refuse,
        };
        Wish::new(&self.service, Work::Sleep { above })
    }
}

// === impl WakeWhat ===

impl WakeWhat {
    fn wish(&self) -> Wish {
        Wish::new(&self.service, Work::Wake)
    }
}
