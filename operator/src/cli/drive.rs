//! Drives operations from the command line, where no operator runs (S20): takes part in the election of the leader, and
//! works only while it leads. So it does no harm beside an operator, which then goes on leading.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::failure::Failure;
use super::session::Session;
use super::settings::WorkArgs;
use crate::operation::drive::{Again, poll_whole};
use crate::operation::record::OpId;
use crate::operation::saga::Env;
use crate::swarm::error::Error;
use crate::swarm::lease::{Leadership, Lease};

/// Time until the next look where nothing is to be done, and after something went wrong.
const PAUSE: Duration = Duration::from_secs(1);

/// Options of commands that can drive what they ask for.
#[derive(Clone, Debug, clap::Args)]
pub struct DriveArgs {
    /// Drive the operation from here, where no operator runs.
    #[arg(long)]
    pub drive: bool,
    /// Settings for that.
    #[command(flatten)]
    pub work: WorkArgs,
}

/// Drives operations in the background until it is stopped.
pub(super) struct Driver {
    driving: JoinHandle<()>,
    leading: JoinHandle<()>,
    stop_driving: CancellationToken,
    stop_leading: CancellationToken,
}

// === impl DriveArgs ===

impl DriveArgs {
    /// A driver of these operations, where one is wanted.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub(super) fn start(&self, session: &Session, ids: &[OpId]) -> Result<Option<Driver>, Failure> {
        self.drive.then(|| Driver::start(session, &self.work, ids)).transpose()
    }
}

// === impl Driver ===

impl Driver {
    /// Begins to drive these operations.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub(super) fn start(session: &Session, work: &WorkArgs, ids: &[OpId]) -> Result<Driver, Failure> {
        let mut env = env(session, work)?;
        let (lease, fence, leadership) = Lease::new(&session.engine, env.settings.instance.clone());
        env.engine = session.engine.with_fence(fence);
        let (stop_driving, stop_leading) = (CancellationToken::new(), CancellationToken::new());
        Ok(Driver {
            leading: tokio::spawn(lease.run(stop_leading.clone())),
            driving: tokio::spawn(drive(env, ids.to_vec(), leadership, stop_driving.clone())),
            stop_driving,
            stop_leading,
        })
    }

    /// Stops at the next poll, then lets go of the lease.
    pub(super) async fn stop(self) {
        self.stop_driving.cancel();
        drop(self.driving.await);
        self.stop_leading.cancel();
        drop(self.leading.await);
    }
}

/// What operations work with, here. Writes are not fenced.
///
/// # Errors
/// When the settings cannot work.
pub(super) fn env(session: &Session, work: &WorkArgs) -> Result<Env, Failure> {
    let me = format!("cli-{}-{:08x}", std::process::id(), rand::random::<u32>());
    let settings = Arc::new(work.settings(&me)?);
    let runners = work.runners()?;
    let (engine, clock) = (session.engine.clone(), session.clock.clone());
    Ok(Env { engine, settings, runners, clock, reports: Arc::new(super::written) })
}

async fn drive(
    env: Env,
    ids: Vec<OpId>,
    mut leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            leads = leadership.wait_for(Leadership::is_leading) => if leads.is_err() { return },
        }
        let mut pause = PAUSE;
        for id in &ids {
            pause = pause.min(match poll_whole(&env, id).await {
                Ok(Again::Idle) => PAUSE,
                Ok(Again::After(pause)) => pause,
                // Somebody else wrote it: read it again.
                Err(Error::Stale { .. }) => Duration::ZERO,
                Err(error) => {
                    warn!(operation = %id, %error, "not driven on just now");
                    PAUSE
                }
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}
