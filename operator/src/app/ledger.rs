//! Records what the stakeholders were told, on the operation itself.

use jiff::Timestamp;

use crate::notify::outbox::Ledger;
use crate::notify::phase::Phase;
use crate::operation::desk;
use crate::operation::record::Operation;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;

/// The operations' own labels.
#[derive(Clone)]
pub struct Told {
    /// The engine, fenced: only the leader sends mail.
    pub engine: Engine,
}

impl Ledger for Told {
    async fn record(&self, operation: &Operation, phases: &[Phase], at: Timestamp) -> Result<(), Error> {
        let told = desk::edit(&self.engine, &operation.id, |op| {
            for phase in phases {
                op.journal.told.insert(phase.as_str().to_owned(), at);
            }
            Ok(())
        });
        match told.await {
            Ok(_) | Err(desk::Refusal::Absent(_) | desk::Refusal::State { .. }) => Ok(()),
            Err(desk::Refusal::Swarm(error)) => Err(error),
        }
    }
}
