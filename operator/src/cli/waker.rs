//! What stands in for a service that sleeps, in its container: nobody else runs this.

use std::error::Error;
use std::path::PathBuf;

use super::failure::Exit;
use super::health::{self, told};
use super::out::Out;

/// `waker`
#[derive(Clone, Debug, clap::Args)]
pub struct WakerArgs {
    /// What to stand in for.
    #[arg(long, value_name = "FILE", default_value = skep_waker::TASK_PATH)]
    pub task: PathBuf,
    /// Only ask the waker in this container whether it listens: for its health check.
    #[arg(long)]
    pub healthy: bool,
}

// === impl WakerArgs ===

impl WakerArgs {
    /// Stands in until `stop`, and then until nothing is open.
    ///
    /// # Errors
    /// When the task cannot be read, or a port cannot be listened on.
    pub async fn stand_in(&self, stop: impl Future<Output = ()>) -> Result<(), Box<dyn Error>> {
        Ok(skep_waker::run(self.read()?, stop).await?)
    }

    fn read(&self) -> Result<skep_waker::Task, Box<dyn Error>> {
        let text = std::fs::read_to_string(&self.task)
            .map_err(|e| format!("cannot read the waker's task {}: {e}", self.task.display()))?;
        Ok(skep_waker::Task::read(&text)?)
    }
}

/// `skep waker --healthy`
pub(super) async fn healthy(out: &Out, args: &WakerArgs) -> Exit {
    match args.read() {
        Ok(task) => told(out, health::ask(task.health_port(), skep_waker::HEALTH_PATH).await),
        Err(error) => {
            out.aside(format!("skep: {error}"));
            Exit::Failed
        }
    }
}
