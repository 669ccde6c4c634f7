//! The administrator's settings of what runs by itself.

use std::time::Duration;

use super::settings::any;
use crate::plan::scheduled::Rules;

/// Settings of what runs by itself; what is absent has its default.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Schedules")]
pub struct ScheduleArgs {
    /// So many backups run at once; further scheduled ones wait their turn. 2 where nothing is said.
    #[arg(long, env = "SKEP_BACKUPS_AT_ONCE", value_name = "COUNT", value_parser = at_least_one)]
    pub backups_at_once: Option<usize>,
    /// So many drills run at once; further scheduled ones wait their turn. 1 where nothing is said.
    #[arg(long, env = "SKEP_DRILLS_AT_ONCE", value_name = "COUNT", value_parser = at_least_one)]
    pub drills_at_once: Option<usize>,
    /// Scheduled backups and drills begin up to so much later, each service always by the same share, but by no more than a tenth of
    /// the time until its next one. `5m` where nothing is said, `0s` for none.
    #[arg(long, env = "SKEP_BACKUP_SPREAD", value_name = "DURATION", value_parser = any)]
    pub backup_spread: Option<Duration>,
}

// === impl ScheduleArgs ===

impl ScheduleArgs {
    /// The rules for what runs by itself.
    pub fn rules(&self) -> Rules {
        let base = Rules::default();
        Rules {
            at_once: self.backups_at_once.unwrap_or(base.at_once),
            drills_at_once: self.drills_at_once.unwrap_or(base.drills_at_once),
            spread: self.backup_spread.unwrap_or(base.spread),
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "want a whole number from 1".to_owned())
}
