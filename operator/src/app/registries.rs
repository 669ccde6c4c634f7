//! Looks tags up in registries while this process leads. A controller of its own: a registry may keep whoever asks waiting.

use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;

use super::Parts;
use crate::operation::saga::Env;
use crate::runtime::{Action, Reconcile};
use crate::swarm::error::Error;
use crate::triggers::registry::{self, Memory};

/// Whether anything is to be looked up is looked at this often.
const EVERY: Duration = Duration::from_secs(20);

/// The one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Look;

/// Asks registries.
pub(super) struct Registries {
    env: Env,
    memory: Mutex<Memory>,
}

impl Registries {
    pub(super) fn new(parts: &Parts) -> Registries {
        Registries { env: parts.env.clone(), memory: Mutex::default() }
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("look")
    }
}

impl Reconcile for Registries {
    type Key = Look;
    type Error = Error;

    async fn reconcile(&self, _key: &Look) -> Result<Action, Error> {
        let mut memory = self.memory.lock().await;
        drop(registry::look(&self.env, &mut memory).await?);
        Ok(Action::After(EVERY))
    }
}
